"""An index finds all that a scan finds, for values of any kind, and takes back what was not to be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.engine.inspection import check
from latchstore.engine.metadata_index import MetadataIndex

NAN = float("nan")
OTHER_NAN = float("nan")
ABSENT: Any = object()

VALUES: list[Any] = [
    ABSENT,
    1,
    True,
    1.0,
    0.0,
    -0.0,
    "1",
    None,
    NAN,
    OTHER_NAN,
    (NAN,),
    (1,),
    (True,),
    frozenset({1}),
    [1],
    {"a": 1},
    Decimal(1),
    ([],),
]


def entry(value: Any) -> Entry:
    return entry_from_metadata({} if value is ABSENT else {"name": value})


def candidates(index: MetadataIndex, value: Any) -> set[str]:
    found: Iterable[str] | None = index.candidates(value)
    assert found is not None
    assert len(list(found)) == len(set(found))
    return set(found)


class Unhashable:
    """Neither hashed nor compared by an index."""

    def __hash__(self) -> int:
        pytest.fail("an index has hashed a user's object")

    def __eq__(self, other: object) -> bool:
        pytest.fail("an index has compared a user's object")

    def __deepcopy__(self, memo: object) -> Unhashable:
        return self


def test_keys_are_found_by_value() -> None:
    index = MetadataIndex("name")
    for key, value in {"a": 1, "b": 2, "c": 1}.items():
        index.replace(key, None, entry(value))
    assert candidates(index, 1) == {"a", "c"}
    assert candidates(index, 2) == {"b"}
    assert candidates(index, 3) == set()
    assert len(index) == 2


def test_one_and_true_share_a_bucket() -> None:
    index = MetadataIndex("name")
    entries = {"int": entry(1), "bool": entry(True), "float": entry(1.0)}
    for key, new in entries.items():
        index.replace(key, None, new)
    assert len(index) == 1
    for value in (1, True, 1.0, 1 + 0j):
        assert candidates(index, value) == {"int", "bool", "float"}
    # From one of them to another the key stays where it is.
    index.replace("int", entries["int"], entry(True))
    assert candidates(index, 1) == {"int", "bool", "float"}
    index.replace("float", entries["float"], None)
    index.replace("bool", entries["bool"], None)
    assert candidates(index, 1.0) == {"int"}
    index.replace("int", entry(True), None)
    assert len(index) == 0


def test_values_that_are_not_looked_up_are_found_by_every_question() -> None:
    index = MetadataIndex("name")
    index.replace("list", None, entry([1]))
    index.replace("object", None, entry(Unhashable()))
    index.replace("one", None, entry(1))
    index.replace("none", None, entry(ABSENT))
    assert candidates(index, 1) == {"list", "object", "one"}
    assert candidates(index, 2) == {"list", "object"}
    # A value that is not looked up itself is for a scan to find.
    assert index.candidates([1]) is None
    assert index.candidates(Unhashable()) is None
    assert index.candidates(([],)) is None
    assert len(index) == 1


def test_a_value_with_an_equality_of_its_own_moves_without_being_compared() -> None:
    index = MetadataIndex("name")
    held = entry(Unhashable())
    index.replace("key", None, held)
    index.replace("key", held, entry(1))
    assert candidates(index, 2) == set()
    index.replace("key", entry(1), held)
    assert candidates(index, 2) == {"key"}
    index.replace("key", held, None)
    assert candidates(index, 2) == set()


def test_replacing_again_and_undoing() -> None:
    """Whatever a key had and has: replacing twice is as once, and the way back leads back."""
    for first, second, third in itertools.product(VALUES, repeat=3):
        index = MetadataIndex("name")
        old, new, beside = entry(first), entry(second), entry(third)
        index.replace("beside", None, beside)
        index.replace("key", None, old)
        before = {"beside": beside, "key": old}
        after = {"beside": beside, "key": new}
        for _ in range(2):
            index.replace("key", old, new)
            index.check(after)
        for _ in range(2):
            index.replace("key", new, old)
            index.check(before)
        for _ in range(2):
            index.replace("key", old, None)
            index.check({"beside": beside})


def test_undoing_what_was_never_done_changes_nothing() -> None:
    """As the undo of a commit does that has broken off before it came to this key."""
    for first, second in itertools.product(VALUES, VALUES):
        index = MetadataIndex("name")
        old, new = entry(first), entry(second)
        index.replace("key", None, old)
        index.replace("key", new, old)
        index.check({"key": old})
        index.replace("new", entry(second), None)
        index.check({"key": old})


def test_nan_is_found_as_the_dict_finds_it_and_never_too_little() -> None:
    index = MetadataIndex("name")
    index.replace("same", None, entry(NAN))
    index.replace("other", None, entry(OTHER_NAN))
    index.replace("tuple", None, entry((NAN,)))
    # (NAN,) == (NAN,) holds for one and the same NaN, so a scan would find it.
    assert candidates(index, (NAN,)) == {"tuple"}
    index.replace("same", entry(NAN), entry(OTHER_NAN))
    index.check({"same": entry(OTHER_NAN), "other": entry(OTHER_NAN), "tuple": entry((NAN,))})


@pytest.mark.parametrize("value", [1, (1,), [1], NAN])
def test_an_index_of_a_live_store_is_that_of_a_new_one(value: Any) -> None:
    store = DictMemoryStore(EventManager())
    store.set_metadata("with", {"name": value})
    store.set_metadata("without", {"other": value})
    store.add_index("name")
    check(store)
    assert list(store.query_keys(name=value)) == (["with"] if value == value else [])
    store.add_index("name")
    assert store.info()["indexes"] == ["name"]


def test_the_checker_finds_damage() -> None:
    def fresh() -> tuple[MetadataIndex, dict[str, Entry]]:
        index = MetadataIndex("name")
        entries = {"one": entry(1), "two": entry(1), "list": entry([])}
        for key, new in entries.items():
            index.replace(key, None, new)
        index.check(entries)
        return index, entries

    for damaged in ("one", "list"):
        index, entries = fresh()
        index.replace(damaged, entries[damaged], None)
        with pytest.raises(AssertionError):
            index.check(entries)
    values: tuple[Any, ...] = (1, 2, [])
    for value in values:
        index, entries = fresh()
        index.replace("ghost", None, entry(value))
        with pytest.raises(AssertionError):
            index.check(entries)
