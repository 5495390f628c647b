"""Queries in order are those of a sorted list, whatever was written, with and without indexes."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latchstore import Above, Below, Between, DictMemoryStore, EventManager, In, Ordered, Prefix
from latchstore.engine.inspection import check

KEYS = st.sampled_from(["a", "b", "ba", "bb", "c", "\U0010ffff", "é"])
NUMBERS = st.sampled_from([-math.inf, -1, 0, 0.5, 1, True, 2, 2.5, 3, 10**30, math.inf])
TEXTS = st.sampled_from(["", "a", "ab", "abc", "b", "\U0010ffff"])
FLAT = st.one_of(st.none(), NUMBERS, TEXTS, st.sampled_from([b"", b"a", math.nan]))
VALUES = st.one_of(FLAT, st.lists(FLAT, max_size=2).map(tuple), st.lists(NUMBERS, max_size=2))
ITEMS = st.dictionaries(st.sampled_from(["it", "kind"]), VALUES, max_size=2)

#: A step: a key and the metadata that it is set to, None to delete it; or a number of entries to read.
STEPS = st.lists(st.one_of(st.tuples(KEYS, ITEMS | st.none()), st.integers(0, 3)), max_size=25)

RANGES = st.one_of(
    st.builds(Between, NUMBERS, NUMBERS, inclusive=st.booleans()),
    st.builds(Between, TEXTS, TEXTS, inclusive=st.booleans()),
    st.builds(Above, NUMBERS | TEXTS, inclusive=st.booleans()),
    st.builds(Below, NUMBERS | TEXTS, inclusive=st.booleans()),
    st.builds(Prefix, TEXTS),
    st.builds(In, st.lists(VALUES, max_size=3)),
)
TERMS = st.dictionaries(st.sampled_from(["it", "kind"]), RANGES | VALUES, max_size=2)

INDEXES: list[list[Any]] = [
    [],
    ["it"],
    [Ordered("it"), Ordered("key")],
    [Ordered("it"), Ordered("kind"), Ordered("key"), Ordered("modified"), Ordered("revision"), "kind"],
]


def rank(value: Any) -> tuple[int, Any]:
    """Return what values are sorted by, as the documentation has it."""
    if value is None:
        return 0, 0
    if isinstance(value, float) and math.isnan(value):
        return 1, 0
    if isinstance(value, (bool, int, float)):
        return 2, value
    for number, kind in enumerate((str, bytes)):
        if isinstance(value, kind):
            return 3 + number, value
    return (5, [rank(item) for item in value]) if isinstance(value, tuple) else (6, 0)


def ordered(items: dict[str, dict[str, Any]], by: str, descending: bool) -> list[str]:
    present = [key for key in items if by == "key" or by in items[key]]
    present.sort(key=lambda key: (rank(key if by == "key" else items[key][by]), key), reverse=descending)
    return present + sorted(items.keys() - present)


def is_meant(held: Any, term: Any) -> bool:
    if isinstance(term, In):
        return any(held is each or held == each for each in term.values)
    if isinstance(term, Prefix):
        return isinstance(held, str) and held.startswith(str(term.prefix))
    if not isinstance(term, (Above, Below, Between)):
        return bool(held == term)
    low, high = getattr(term, "low", None), getattr(term, "high", None)
    bound = high if low is None else low
    if rank(held)[0] != rank(bound)[0]:
        return False
    above = low is None or held > low or (held == low and (isinstance(term, Between) or term.inclusive))
    return above and (high is None or held < high or (term.inclusive and held == high))


def matching(items: dict[str, dict[str, Any]], terms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        key: metadata
        for key, metadata in items.items()
        if all(name in metadata and is_meant(metadata[name], term) for name, term in terms.items())
    }


@given(
    STEPS,
    TERMS,
    st.sampled_from(["it", "kind", "key"]),
    st.booleans(),
    st.none() | st.integers(0, 8),
    st.sampled_from(INDEXES),
)
def test_as_a_sorted_list(
    steps: list[Any], terms: dict[str, Any], by: str, descending: bool, limit: int | None, indexes: list[Any]
) -> None:
    store = DictMemoryStore(EventManager(), indexes=indexes)
    items: dict[str, dict[str, Any]] = {}
    views = []
    for step in steps:
        if isinstance(step, int):
            assert list(store.query_keys(order_by="it", limit=step)) == ordered(items, "it", False)[:step]
            views.append((store.snapshot(), dict(items)))
        elif step[1] is not None:
            store.set(step[0], (b"", step[1]))
            items[step[0]] = step[1]
        elif items.pop(step[0], None) is not None:
            store.delete(step[0])
    check(store)
    for view, held in [(store, items), *views]:
        expected = ordered(matching(held, terms), by, descending)
        options: dict[str, Any] = {"order_by": by, "descending": descending, "limit": limit}
        assert list(view.query_keys(where=terms, **options)) == expected[:limit]
        assert list(view.query_keys(where=terms, **{**options, "limit": None})) == expected
        assert sorted(view.query_keys(where=terms)) == sorted(expected)
        for pattern, prefix in (("b*", "b"), ("*", "")):
            globbed = [key for key in ordered(held, by, descending) if key.startswith(prefix)]
            assert list(view.glob(pattern, **options)) == globbed[:limit]
            assert sorted(view.glob(pattern)) == sorted(globbed)
    with store.transaction("t"):
        store.set("ba", (b"", {"it": 1}))
        store.set("c", (b"", {"kind": "a"}))
        expected = ordered(matching({**items, "ba": {"it": 1}, "c": {"kind": "a"}}, terms), by, descending)
        assert list(store.query_keys(where=terms, **options)) == expected[:limit]
        assert sorted(store.query_keys(where=terms)) == sorted(expected)
    check(store)
