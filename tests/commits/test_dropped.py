"""What is dropped is freed outside the section; the checker finds damage."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import inf

import pytest

from latchstore import DictMemoryStore, EventManager, RevisionMismatchError
from latchstore.contract.values import Entry, entry_from_metadata
from latchstore.engine.inspection import check, table_of
from latchstore.engine.metadata_index import MetadataIndex
from latchstore.engine.table import Table
from tests.commits.kinds import fail, make_store

# -- what is dropped ---------------------------------------------------------------------------------------


class Writes:
    """A metadata value that is kept as it is, and writes to the store when it is freed."""

    def __init__(self, store: DictMemoryStore, outcomes: list[object]) -> None:
        self.store, self.outcomes = store, outcomes

    def __deepcopy__(self, memo: object) -> Writes:
        return Writes(self.store, self.outcomes)

    def __del__(self) -> None:
        try:
            self.store.from_bytes("written by a finalizer", b"%d" % len(self.store))
            self.outcomes.append("written")
        except BaseException as error:
            self.outcomes.append(error)


def closes_snapshots(store: DictMemoryStore) -> None:
    views = [store.snapshot()]
    store.delete("k")
    views.append(store.snapshot())
    store.from_bytes("k", b"")
    for view in views:
        view.close()


def rolls_back(store: DictMemoryStore, outcomes: list[object]) -> None:
    with store.transaction() as block:
        store.set("k", (b"", {"item": Writes(store, outcomes)}))
        block.rollback()


def drops_a_block(store: DictMemoryStore, outcomes: list[object]) -> None:
    block = store.transaction()
    block.__enter__()
    store.set("k", (b"", {"item": Writes(store, outcomes)}))
    del block
    len(store)
    store.from_bytes("other", b"")


def is_broken_off(store: DictMemoryStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetadataIndex, "replace_all", fail)
        with pytest.raises(MemoryError):
            store.multiset_metadata(["k", "l"], [{}, {}])
    assert table_of(store).journal is not None
    len(store)


def overflows(store: DictMemoryStore) -> None:
    with store.watch(max_buffer=1):
        store.delete("k")
        store.from_bytes("k", b"")
        store.from_bytes("k", b"")


def in_a_transaction(store: DictMemoryStore, optimistic: bool) -> None:
    with store.transaction(optimistic=optimistic):
        store.to_bytes("k")
        store.set("k", (b"", {}))
        store.from_bytes("l", b"")


DROPS: dict[str, Callable[[DictMemoryStore, list[object]], object]] = {
    "set": lambda store, outcomes: store.set("k", (b"", {})),
    "delete": lambda store, outcomes: store.delete("k"),
    "multiset": lambda store, outcomes: store.multiset(["k", "l"], [(b"", {}), (b"", {})]),
    "transaction": lambda store, outcomes: in_a_transaction(store, False),
    "optimistic": lambda store, outcomes: in_a_transaction(store, True),
    "an edit that is dropped": lambda store, outcomes: rolls_back(store, outcomes),
    "a block that is dropped": lambda store, outcomes: drops_a_block(store, outcomes),
    "snapshots": lambda store, outcomes: closes_snapshots(store),
    "a commit that is broken off": lambda store, outcomes: is_broken_off(store),
    "a watch": lambda store, outcomes: overflows(store),
    "a condition that fails": lambda store, outcomes: fails_its_condition(store, outcomes),
}


def fails_its_condition(store: DictMemoryStore, outcomes: list[object]) -> None:
    with pytest.raises(RevisionMismatchError):
        store.set("k", (b"", {"item": Writes(store, outcomes)}), if_revision=99)


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize("name", DROPS)
def test_what_is_dropped_is_freed_when_the_section_is_over(name: str, history: int) -> None:
    """So that a finalizer may use the store, and is not in the middle of anything."""
    store = DictMemoryStore(EventManager(), history=history, indexes=["item"])
    outcomes: list[object] = []
    store.set("k", (b"", {"item": Writes(store, outcomes)}))
    DROPS[name](store, outcomes)
    for number in range(3):  # the history forgets
        store.set("k", (b"%d" % number, {}))
    gc.collect()
    assert outcomes
    assert set(outcomes) == {"written"}
    check(store)


# -- the checker itself ---------------------------------------------------------------------------


def misplace(table: Table) -> None:
    table.entries["stays"] = None  # type: ignore[assignment]


def mistype(table: Table) -> None:
    table.entries[3] = table.entries["stays"]  # type: ignore[index]


def grow(table: Table) -> None:
    table.entries["stays"].data = bytearray(b"s")  # type: ignore[assignment]


def age(table: Table) -> None:
    table.entries["stays"].created = inf


def precede(table: Table) -> None:
    table.entries["stays"].revision = 2


def forget(table: Table) -> None:
    table.indexes["a"].replace("stays", table.entries["stays"], None)


def invent(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(7))


def invent_unhashable(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry([7]))


def share(table: Table) -> None:
    table.indexes["b"].replace("ghost", None, entry(1))


def entry(b: object) -> Entry:
    return entry_from_metadata({"b": b})


@pytest.mark.parametrize(
    "damage", [misplace, mistype, grow, age, precede, forget, invent, invent_unhashable, share]
)
def test_the_checker_finds_damage(damage: Callable[[Table], None]) -> None:
    table = table_of(make_store())
    table.check()
    damage(table)
    with pytest.raises(AssertionError):
        table.check()
