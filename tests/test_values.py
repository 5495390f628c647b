"""Values and entries: data is never copied without need, metadata is never shared.

What values promise to callers is in the contract suite. Here is what it cannot see: whose bytes a stream
reads, when a deep copy is made, and that no method of a caller's object runs where it must not.
"""

from __future__ import annotations

import copy
import io
import sys
import tracemalloc
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StringValue
from latchstore.contract.values import (
    Entry,
    NestedEntry,
    entry_from_metadata,
    is_immutable,
    merged_metadata,
    with_metadata_of,
)

DATA = b"some data that is not interned" * 100

cpython = pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython shares bytes")


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


# -- data is not copied ---------------------------------------------------------------------------

WAYS_IN: dict[str, Callable[[DictMemoryStore, bytes], None]] = {
    "from_bytes": lambda store, data: store.from_bytes("k", data),
    "set": lambda store, data: store.set("k", (data, {})),
    "set, of a stream": lambda store, data: store.set("k", (io.BytesIO(data), {})),
    "set, of a value": lambda store, data: store.set("k", StringValue(data)),
    "set_data": lambda store, data: store.set_data("k", data),
    "set_data, of a stream": lambda store, data: store.set_data("k", io.BytesIO(data)),
    "multiset": lambda store, data: store.multiset(["k"], [(io.BytesIO(data), {})]),
    "multiset_data": lambda store, data: store.multiset_data(["k"], [data]),
}

LATER_CHANGES: dict[str, Callable[[DictMemoryStore], None]] = {
    "nothing": lambda store: None,
    "set_metadata": lambda store: store.set_metadata("k", {"n": 1}),
    "update_metadata": lambda store: store.update_metadata("k", {"n": 1}),
    "copy": lambda store: store.set("k", store.get("k")),
}


@cpython
@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("change", LATER_CHANGES)
def test_bytes_are_kept_as_they_are(store: DictMemoryStore, way_in: str, change: str) -> None:
    WAYS_IN[way_in](store, DATA)
    LATER_CHANGES[change](store)
    assert store.to_bytes("k") is DATA


def allocated(function: Callable[[], object]) -> int:
    """Return the size of the largest block that a call has allocated, in bytes."""
    tracemalloc.start()
    try:
        kept = function()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return peak


@cpython
@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get("k").data,
        lambda store: store.get_data("k"),
        lambda store: store.get_data("k").read(),
        lambda store: store.get_data_range("k"),
        lambda store: list(store.multiget_data(["k"])),
        lambda store: store.to_bytes("k"),
    ],
)
def test_streams_out_share_the_bytes(
    store: DictMemoryStore, read: Callable[[DictMemoryStore], object]
) -> None:
    size = 4_000_000
    store.from_bytes("k", bytes(size))
    read(store)  # what is made once, at the first call
    assert allocated(lambda: read(store)) < size // 10


@cpython
def test_a_stream_that_is_written_to_gets_bytes_of_its_own(store: DictMemoryStore) -> None:
    store.from_bytes("k", DATA)
    stream = store.get_data("k")
    stream.write(b"overwritten")
    stream.truncate(5)
    assert stream.getvalue() == b"overw"  # type: ignore[attr-defined]
    assert store.to_bytes("k") is DATA
    assert store.get_data("k").read() is DATA
    with store.get_data("k").getbuffer() as view:  # type: ignore[attr-defined]
        view[:4] = b"XXXX"
    assert store.to_bytes("k") == DATA == b"some data that is not interned" * 100


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_what_can_change_is_copied(store: DictMemoryStore, kind: Callable[[bytes], Any]) -> None:
    given = kind(DATA)
    store.from_bytes("k", given)
    assert store.to_bytes("k") == DATA
    assert type(store.to_bytes("k")) is bytes


def test_a_stream_is_read_from_where_it_stands(store: DictMemoryStore) -> None:
    stream = io.BytesIO(b"0123456789")
    stream.seek(4)
    store.set_data("k", stream)
    assert store.to_bytes("k") == b"456789"
    assert stream.tell() == 10


def test_a_subclass_of_bytesio_is_read_like_any_stream(store: DictMemoryStore) -> None:
    sizes: list[int | None] = []

    class Upper(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return super().read(size).upper()

    store.set_data("k", Upper(b"abc"), 2)
    assert store.to_bytes("k") == b"ABC"
    assert sizes == [2, 2, 2]


# -- what is immutable ----------------------------------------------------------------------------


class Colour(Enum):
    RED = 1


class Int(int):
    """May carry attributes."""


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, 1j, "x", b"x", (), (1, "a"), ((1,), (b"",)), frozenset(), frozenset({1, (2,)})],
)
def test_immutable(value: object) -> None:
    assert is_immutable(value)
    # So it need not be copied, and is handed out as it is.
    entry = entry_from_metadata({"name": value})
    assert type(entry) is Entry
    assert entry.isolated_metadata()["name"] is value
    assert entry.selected_metadata(["name"])["name"] is value


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        set(),
        bytearray(),
        ([],),
        (1, (2, [])),
        frozenset({Decimal(1)}),
        Decimal(1),
        Fraction(1, 2),
        Colour.RED,
        Int(1),
        Pair(1, 2),
        object(),
        int,
    ],
)
def test_not_known_to_be_immutable(value: object) -> None:
    assert not is_immutable(value)
    entry = entry_from_metadata({"flat": 1, "name": value})
    assert type(entry) is NestedEntry


# -- metadata is copied on its way in and out -------------------------------------------------------


def changed_in_depth(metadata: dict[str, Any]) -> None:
    metadata["list"].append(2)
    metadata["tuple"][0].append(2)
    metadata["dict"]["deep"].append(2)
    metadata["flat"] = 2
    metadata["added"] = 2


def nested() -> dict[str, Any]:
    return {"list": [1], "tuple": ([1],), "dict": {"deep": [1]}, "flat": 1}


def test_an_entry_shares_nothing_with_what_it_was_made_of() -> None:
    given = nested()
    entry = entry_from_metadata(given)
    changed_in_depth(given)
    assert dict(entry) == nested()


def test_an_entry_shares_nothing_with_what_it_hands_out() -> None:
    entry = entry_from_metadata(nested())
    changed_in_depth(entry.isolated_metadata())
    changed_in_depth(entry.selected_metadata(["list", "tuple", "dict", "missing"]))
    assert dict(entry) == nested()
    assert type(entry.isolated_metadata()) is dict
    assert type(entry.selected_metadata(["flat"])) is dict


def test_items_that_are_one_object_stay_one() -> None:
    shared: list[int] = []
    entry = entry_from_metadata({"a": shared, "b": shared})
    assert entry["a"] is entry["b"] is not shared
    out = entry.isolated_metadata()
    assert out["a"] is out["b"] is not entry["a"]


def test_only_what_is_selected_is_copied() -> None:
    copies: list[str] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __deepcopy__(self, memo: object) -> Counted:
            copies.append(self.name)
            return Counted(self.name)

    entry = entry_from_metadata({"a": Counted("a"), "b": Counted("b")})
    assert sorted(copies) == ["a", "b"]
    copies.clear()
    entry.selected_metadata(["a"])
    assert copies == ["a"]


def test_flat_metadata_is_never_copied_in_depth(
    store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_deep_copy(*arguments: object) -> object:
        pytest.fail("a deep copy of flat metadata")

    monkeypatch.setattr(copy, "deepcopy", no_deep_copy)
    flat = {"n": 1, "tags": ("a", "b"), "none": None, "raw": b"x", "set": frozenset({1})}
    store.set("k", (b"", flat))
    store.update_metadata("k", {"more": 2.5})
    store.set("l", store.get("k"))
    for key in ("k", "l"):
        assert store.get_metadata(key) == store.get(key).metadata == {**flat, "more": 2.5}
        assert store.get_metadata(key, ["n"]) == {"n": 1}
        assert next(store.query(n=1))[1] == {**flat, "more": 2.5}


@pytest.mark.parametrize("make", [OrderedDict, UserDict, lambda items: Entry(items)])
def test_any_mapping_becomes_an_entry(make: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    given = make({"a": 1, "b": [2]})
    entry = entry_from_metadata(given)
    assert dict(entry) == {"a": 1, "b": [2]}
    assert entry is not given


@pytest.mark.parametrize("metadata", [None, [], [("a", 1)], "text", 3, {"a"}])
def test_metadata_is_a_mapping(metadata: Any) -> None:
    with pytest.raises(TypeError, match=r"^the argument's part must be a mapping with str keys, got "):
        entry_from_metadata(metadata, "the argument", "'s part")


@pytest.mark.parametrize("name", [1, None, b"a", ("a",)])
def test_names_of_items_are_strings(name: Any) -> None:
    with pytest.raises(TypeError, match=r"^the argument must have str keys, got the key "):
        entry_from_metadata({"a": 1, name: 2}, "the argument")


class LoudName(str):
    """A string with a hash and an equality of its own, which the store must not keep."""

    __slots__ = ("calls",)
    calls: int

    def __hash__(self) -> int:
        self.calls = getattr(self, "calls", 0) + 1
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        self.calls = getattr(self, "calls", 0) + 1
        return str.__eq__(self, other)


def test_names_of_string_subclasses_become_plain_strings() -> None:
    name = LoudName("name")
    entry = entry_from_metadata({name: [1]})
    (kept,) = entry
    assert type(kept) is str
    calls = name.calls
    assert entry.isolated_metadata() == {"name": [1]}
    assert name.calls == calls


def test_merging_makes_a_new_entry() -> None:
    flat, deep = entry_from_metadata({"a": 1, "b": 2}), entry_from_metadata({"b": [3]})
    flat.data = b"data"
    merged = merged_metadata(flat, deep)
    assert dict(merged) == {"a": 1, "b": [3]}
    assert type(merged) is NestedEntry
    assert (dict(flat), dict(deep)) == ({"a": 1, "b": 2}, {"b": [3]})
    assert merged.data == b"data"
    # What was nested is no more, when the nested item is replaced.
    again = merged_metadata(merged, entry_from_metadata({"b": 4}))
    assert dict(again) == {"a": 1, "b": 4}
    assert type(again) is Entry


def test_metadata_is_taken_over_without_a_copy() -> None:
    entry = entry_from_metadata(nested())
    other = with_metadata_of(entry)
    assert other is not entry
    assert type(other) is NestedEntry
    assert all(other[name] is entry[name] for name in entry)
    assert type(with_metadata_of(entry_from_metadata({"a": 1}))) is Entry
    assert dict(with_metadata_of(None)) == {}


# -- who is asked to compare ----------------------------------------------------------------------


class Comparing:
    """Keeps hold of whatever its ``==`` is called with, itself included."""

    seen: list[Any]

    def __init__(self) -> None:
        self.seen = []
        self.state = "as it was stored"

    def __deepcopy__(self, memo: object) -> Comparing:
        other = Comparing()
        other.seen, other.state = self.seen, self.state
        return other

    def __eq__(self, other: object) -> bool:
        self.seen.extend([self, other])
        return False

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("indexes", [(), ("held",)])
@pytest.mark.parametrize(
    "wanted", [1, "text", (1,), [1], Comparing()], ids=lambda wanted: type(wanted).__name__
)
def test_comparing_hands_out_nothing_that_the_store_holds(indexes: tuple[str, ...], wanted: Any) -> None:
    store = DictMemoryStore(EventManager(), indexes=indexes)
    held = Comparing()
    store.set_metadata("k", {"held": held, "in a list": [held]})
    assert list(store.query_keys(held=wanted)) == []
    assert list(store.query_keys(where={"in a list": [wanted]})) == []
    for value in held.seen:
        if isinstance(value, Comparing):
            value.state = "changed by whoever compared"
    metadata = store.get_metadata("k")
    assert metadata["held"].state == metadata["in a list"][0].state == "as it was stored"


# -- a value --------------------------------------------------------------------------------------


def test_a_value_says_what_it_is_and_shows_no_data() -> None:
    assert repr(StringValue(b"secret", {"password": "secret"})) == "<StringValue 6 bytes, 1 metadata items>"


def test_a_value_in_no_store_has_no_revision() -> None:
    assert StringValue(b"").revision is None


def test_a_value_knows_whether_its_stream_was_asked_for(store: DictMemoryStore) -> None:
    store.from_bytes("k", DATA)
    value = store.get("k")
    assert isinstance(value, StringValue)
    assert value.untouched
    assert (value.metadata, value.size, value.range(0, 1).read()) == ({}, len(DATA), b"s")
    assert value.untouched
    value.data.read(1)
    assert not value.untouched


def test_the_rest_of_a_value_is_what_its_stream_has_left(store: DictMemoryStore) -> None:
    value = StringValue(b"0123456789", {"n": [1]})
    value.data.seek(7)
    store.set("k", value)
    assert store.to_bytes("k") == b"789"
    assert store.get_metadata("k") == {"n": [1]}
