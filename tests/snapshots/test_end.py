"""A snapshot that is closed or dropped frees what it pinned."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from readerwriterlock import rwlock

from latchstore import DictMemoryStore, EventManager, Snapshot
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock
from tests.contract.snapshots import change_everything, fill
from tests.schedules import in_another_thread
from tests.snapshots.reads import assert_nothing_pinned


def test_closing_twice_is_harmless(store: DictMemoryStore) -> None:
    first, second = store.snapshot(), store.snapshot()
    for _ in range(3):
        first.close()
    change_everything(store)
    assert store.info()["snapshots"] == 1, "the second shares the first one's moment, and is open"
    assert len(second) == 3
    second.close()
    assert_nothing_pinned(store)


def test_a_dropped_snapshot_frees_what_it_pinned(store: DictMemoryStore) -> None:
    view: Snapshot | None = store.snapshot()
    change_everything(store)
    assert store.info()["pinned_entries"] == 3
    view = None
    assert_nothing_pinned(store)
    # And in a cycle, which the collector finds.
    cycle: list[Any] = [store.snapshot()]
    cycle.append(cycle)
    change_everything(store)
    assert store.info()["snapshots"] == 1
    del cycle
    gc.collect()
    assert_nothing_pinned(store)
    assert view is None


def test_the_old_entries_themselves_are_freed(store: DictMemoryStore) -> None:
    class Marked(dict[str, Any]):
        """Metadata can hold anything that can be copied; this can be watched."""

        def __deepcopy__(self, memo: dict[int, Any]) -> Marked:
            copied = Marked(self)
            copies.append(weakref.ref(copied))
            return copied

    copies: list[weakref.ref[Marked]] = []
    store.set("marked", (b"", {"mark": Marked()}))
    assert copies[-1]() is not None
    view = store.snapshot()
    store.delete("marked")
    gc.collect()
    assert copies[0]() is not None, "the snapshot needs it"
    view.close()
    gc.collect()
    assert [copy() for copy in copies] == [None] * len(copies)


def test_closing_while_the_table_is_in_use_does_not_wait(store: DictMemoryStore) -> None:
    view = store.snapshot()
    change_everything(store)
    table_of(store).exclusively("test", in_another_thread, view.close)
    assert table_of(store).preimages.layers, "somebody else has to free it"
    store.from_bytes("another", b"commit")
    assert table_of(store).preimages.layers == []
    assert_nothing_pinned(store)


@pytest.mark.parametrize("lock_class", [ReadWriteLock, rwlock.RWLockFair])
def test_closing_in_the_middle_of_a_read_does_not_wait(lock_class: Any) -> None:
    """As a finalizer or a signal handler may."""
    store = DictMemoryStore(EventManager(), lock_class=lock_class)
    fill(store)
    views = [store.snapshot(), store.snapshot()]
    change_everything(store)
    table_of(store).read(in_another_thread, views[0].close)
    table_of(store).read(views[1].close)
    assert_nothing_pinned(store)


def test_a_snapshot_keeps_the_tables_of_its_store() -> None:
    store = DictMemoryStore(EventManager())
    fill(store)
    view = store.snapshot()
    del store
    gc.collect()
    assert view.to_bytes("doc/1") == b"one"
    view.close()
