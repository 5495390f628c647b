"""A commit is applied whole or not at all, whatever fails on the way, and at whatever point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore.contract.values import Change, Entry, entry_from_metadata
from latchstore.engine.locking import Latches, SharedLatch, this_thread
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.table import Table

TIMEOUT = 30.0


def entry(data: bytes, revision: int, **metadata: Any) -> Entry:
    new = entry_from_metadata(metadata)
    new.data = data
    new.created = new.modified = float(revision)
    new.revision = revision
    return new


class BrokenIndex(MetadataIndex):
    """Fails at the n-th call of `replace` from now, once."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fail_at = 0
        self.error: type[BaseException] = MemoryError

    def replace(self, key: str, old: Entry | None, new: Entry | None) -> None:
        self.fail_at -= 1
        if self.fail_at == 0:
            raise self.error("on purpose")
        super().replace(key, old, new)


class FullDict(dict[str, Any]):
    """Has no room for new keys."""

    full = False

    def update(self, changes: dict[str, Any]) -> None:  # type: ignore[override]
        for key, value in changes.items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if self.full and key == "new too":
            raise MemoryError("no room")
        super().__setitem__(key, value)


@pytest.fixture
def table() -> Iterator[Table]:
    """A table at revision 1, whose writer mutex this thread holds, as `Table.apply` wants it."""
    latches = Latches(SharedLatch, TIMEOUT)
    table = Table(latches, ["a", "b"])
    claim = (this_thread.thread, "test")
    latches.writer.acquire_as_writer(claim, 0)
    apply(
        table, {"stays": entry(b"s", 1, a=1, b=1), "goes": entry(b"g", 1, a=1), "moves": entry(b"m", 1, b=2)}
    )
    yield table
    # Whatever happened, the table's lock is free.
    assert not latches.table.writing
    latches.writer.release(claim)
    free: list[bool] = []
    latches.table.try_excluding(lambda: free.append(True))
    assert free


def changes_of(table: Table, new: dict[str, Entry | None]) -> list[Change]:
    return [(key, table.entries.get(key), after) for key, after in new.items()]


def apply(table: Table, new: dict[str, Entry | None]) -> None:
    before = {key: table.entries.get(key) for key in new}
    table.apply(before, new, table.revision + 1, lambda: None)


def commit(revision: int) -> dict[str, Entry | None]:
    """Everything that a commit may do: change, delete and create, with and without indexed items."""
    return {
        "moves": entry(b"M", revision, a=3, b=[1]),
        "goes": None,
        "new": entry(b"n", revision, a=1),
        "new too": entry(b"N", revision, b=1),
    }


def state(table: Table) -> object:
    """All that a table holds, indexes included."""
    table.check()
    return (
        dict(table.entries),
        table.revision,
        {
            name: (
                {value: set(index.candidates(value) or ()) for value in (1, 2, 3)},
                len(index),
            )
            for name, index in table.indexes.items()
        },
    )


def test_a_commit_is_applied(table: Table) -> None:
    new = commit(2)
    apply(table, new)
    assert table.revision == 2
    assert set(table.entries) == {"stays", "moves", "new", "new too"}
    assert all(table.entries[key] is new[key] for key in ("moves", "new", "new too"))
    assert {key for key, _ in table.candidates({"a": 1})} == {"stays", "new"}
    assert {key for key, _ in table.candidates({"b": 1})} == {"stays", "new too", "moves"}
    table.check()


def test_one_change_is_applied(table: Table) -> None:
    new = entry(b"new", 2, a=1)
    table.apply_one(("new", None, new), 2)
    assert table.entries["new"] is new
    assert table.revision == 2
    assert {key for key, _ in table.candidates({"a": 1})} == {"stays", "goes", "new"}
    table.check()


def test_one_deletion_is_applied(table: Table) -> None:
    (change,) = changes_of(table, {"goes": None})
    table.apply_one(change, 2)
    assert set(table.entries) == {"stays", "moves"}
    assert table.revision == 2
    assert {key for key, _ in table.candidates({"a": 1})} == {"stays"}
    table.check()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("broken", ["a", "b"])
@pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
def test_an_index_that_fails_half_way_changes_nothing(
    table: Table, broken: str, fail_at: int, error: type[BaseException]
) -> None:
    index = BrokenIndex(broken)
    for key, old in table.items():
        index.replace(key, None, old)
    table.indexes[broken] = index
    before = state(table)
    index.fail_at, index.error = fail_at, error
    with pytest.raises(error, match="on purpose"):
        apply(table, commit(2))
    assert state(table) == before
    apply(table, commit(2))
    assert table.revision == 2
    table.check()


@pytest.mark.parametrize("after", [entry(b"M", 2, a=3, b=4), None])
def test_an_index_that_fails_changes_nothing_for_one_key(table: Table, after: Entry | None) -> None:
    index = BrokenIndex("b")
    for key, old in table.items():
        index.replace(key, None, old)
    table.indexes["b"] = index
    before = state(table)
    index.fail_at = 1
    (change,) = changes_of(table, {"moves": after})
    with pytest.raises(MemoryError):
        table.apply_one(change, 2)
    assert state(table) == before
    table.apply_one(change, 2)
    table.check()


def test_no_room_for_new_keys_changes_nothing(table: Table) -> None:
    entries = FullDict(table.entries)
    table.entries = entries
    before = state(table)
    entries.full = True
    with pytest.raises(MemoryError, match="no room"):
        apply(table, commit(2))
    assert state(table) == before
    entries.full = False
    apply(table, commit(2))
    table.check()


def test_no_room_for_one_new_key_changes_nothing(table: Table) -> None:
    entries = FullDict(table.entries)
    table.entries = entries
    before = state(table)
    entries.full = True
    with pytest.raises(MemoryError, match="no room"):
        table.apply_one(("new too", None, entry(b"N", 2, a=1, b=1)), 2)
    assert state(table) == before


def test_an_index_is_built_before_it_is_seen(table: Table) -> None:
    published = table.indexes
    table.add_index("c")
    # Readers of the old dict are not disturbed.
    assert set(published) == {"a", "b"}
    assert set(table.indexes) == {"a", "b", "c"}
    table.remove_index("a")
    assert set(table.indexes) == {"b", "c"}
    table.check()


def test_an_index_asks_for_the_mutex() -> None:
    table = Table(Latches(SharedLatch, TIMEOUT))
    with pytest.raises(AssertionError):
        table.add_index("a")
    with pytest.raises(AssertionError):
        table.remove_index("a")


def test_several_indexes_answer_from_the_shortest(table: Table) -> None:
    for number in range(5):
        apply(table, {f"many {number}": entry(b"", table.revision + 1, a="many", b=number)})
    assert [key for key, _ in table.candidates({"a": "many", "b": 3})] == ["many 3"]
    assert [key for key, _ in table.candidates({"b": 3, "a": "many"})] == ["many 3"]
    assert list(table.candidates({"a": "many", "b": "none"})) == []
    # A value that only a scan can find, and an item that has no index, leave it to the others.
    assert [key for key, _ in table.candidates({"a": [], "b": 3})] == ["many 3"]
    assert [key for key, _ in table.candidates({"unindexed": 1, "b": 3})] == ["many 3"]
    assert len(list(table.candidates({"a": []}))) == len(table.entries)
    assert len(list(table.candidates({"unindexed": 1}))) == len(table.entries)


def test_items_are_those_of_the_call(table: Table) -> None:
    items = table.items()
    before = dict(table.entries)
    apply(table, commit(2))
    assert dict(items) == before


# -- the checker itself ---------------------------------------------------------------------------


def misplace(table: Table) -> None:
    table.entries["stays"] = None


def mistype(table: Table) -> None:
    table.entries[3] = table.entries["stays"]  # type: ignore[index]


def grow(table: Table) -> None:
    table.entries["stays"].data = bytearray(b"s")  # type: ignore[union-attr]


def age(table: Table) -> None:
    table.entries["stays"].created = 99.0  # type: ignore[union-attr]


def precede(table: Table) -> None:
    table.entries["stays"].revision = 2  # type: ignore[union-attr]


def forget(table: Table) -> None:
    table.indexes["a"].replace("stays", table.entries["stays"], None)


def invent(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(b"", 1, b=7))


def invent_unhashable(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(b"", 1, b=[7]))


def share(table: Table) -> None:
    table.indexes["a"].replace("ghost", None, entry(b"", 1, a=1))


@pytest.mark.parametrize(
    "damage", [misplace, mistype, grow, age, precede, forget, invent, invent_unhashable, share]
)
def test_the_checker_finds_damage(table: Table, damage: Callable[[Table], None]) -> None:
    table.check()
    damage(table)
    with pytest.raises(AssertionError):
        table.check()
