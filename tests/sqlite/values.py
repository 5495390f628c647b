"""Values of all types that metadata in a file may have, for property tests."""

from __future__ import annotations

import datetime as dt
import zoneinfo

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=()), max_size=5)
names = texts | st.sampled_from(["$dict", "$tuple", "$", "a", "\ud800\udc00"])
zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(
        dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)), st.text(max_size=3)
    ),
    st.sampled_from([zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.builds(dt.datetime.replace, st.datetimes(), fold=st.sampled_from([0, 1])),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals().filter(lambda value: not value.is_snan()),  # it has no hash
    st.uuids(),
)
hashables = st.recursive(
    scalars,
    lambda some: st.lists(some, max_size=3).map(tuple) | st.frozensets(some, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables | st.sets(hashables, max_size=3),
    lambda some: st.one_of(
        st.lists(some, max_size=3),
        st.lists(some, max_size=3).map(tuple),
        st.dictionaries(names | hashables, some, max_size=3),
    ),
    max_leaves=6,
)
