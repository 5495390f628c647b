"""Many snapshots at once, and what `info()` tells of them."""

from __future__ import annotations

import pytest

from latchstore import DictMemoryStore
from tests.contract.snapshots import BrokenBlockError, change_everything, whole
from tests.schedules import in_another_thread, run_threads
from tests.snapshots.reads import assert_nothing_pinned

# -- many of them ----------------------------------------------------------------------------------------


def test_snapshots_of_one_moment_share_what_they_pin(store: DictMemoryStore) -> None:
    before = whole(store)
    views = [store.snapshot() for _ in range(5)]
    change_everything(store)
    facts = store.info()
    assert (facts["snapshots"], facts["pinned_entries"]) == (5, 3)
    for view in views[1:]:
        view.close()
        assert whole(views[0]) == before
    assert (store.info()["snapshots"], store.info()["pinned_entries"]) == (1, 3)
    views[0].close()
    assert_nothing_pinned(store)


# -- info() ------------------------------------------------------------------------------------------------


def test_info_tells_what_snapshots_pin(store: DictMemoryStore) -> None:
    def facts() -> tuple[int, int, int]:
        info = store.info()
        return info["snapshots"], info["pinned_entries"], info["pinned_bytes"]

    assert facts() == (0, 0, 0)
    first = store.snapshot()
    assert facts() == (1, 0, 0), "nothing has changed, so nothing is pinned"
    store.from_bytes("doc/1", b"1234567")
    assert facts() == (1, 1, 3)
    store.from_bytes("doc/1", b"")
    assert facts() == (1, 1, 3), "what came between is not needed"
    store.from_bytes("new", b"123456")
    assert facts() == (1, 1, 3), "that there was no such key costs no entry"
    second = store.snapshot()
    store.delete("new")
    store.delete("doc/1")
    assert facts() == (2, 3, 3 + 6 + 0)
    first.close()
    assert facts() == (1, 2, 6)
    second.close()
    assert facts() == (0, 0, 0)


def test_info_leaves_to_older_snapshots_what_they_need(store: DictMemoryStore) -> None:
    older = store.snapshot()
    store.from_bytes("new", b"")
    newer = store.snapshot()
    store.from_bytes("doc/1", b"")
    store.from_bytes("new", b"changed")
    assert store.info()["pinned_entries"] == 2
    newer.close()
    assert store.info()["pinned_entries"] == 1, "doc/1, of which the newer one has kept the old entry"
    assert older.to_bytes("doc/1") == b"one"
    assert not older.exists("new")
    older.close()
    assert_nothing_pinned(store)


def test_info_tells_the_age_of_the_oldest(store: DictMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("latchstore.engine.preimages.time.monotonic", lambda: now)
    first = store.snapshot()
    now = 103.0
    store.from_bytes("a", b"")
    second = store.snapshot()
    now = 110.0
    assert store.info()["oldest_snapshot"] == 10.0
    first.close()
    assert store.info()["oldest_snapshot"] == 7.0
    second.close()
    assert store.info()["oldest_snapshot"] == 0.0


def test_an_optimistic_transaction_is_counted_as_a_snapshot(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True):
        assert in_another_thread(store.info)["snapshots"] == 1
    assert_nothing_pinned(store)


def test_of_threads_that_close_a_snapshot_one_does(store: DictMemoryStore) -> None:
    for _ in range(100):
        kept, view = store.snapshot(), store.snapshot()
        run_threads([view.close] * 4)
        assert store.info()["snapshots"] == 1
        kept.close()
    assert_nothing_pinned(store)


def test_a_transaction_that_is_rolled_back_pins_nothing(store: DictMemoryStore) -> None:
    with store.snapshot():
        with pytest.raises(BrokenBlockError), store.transaction():  # noqa: PT012 (the block is the body)
            change_everything(store)
            raise BrokenBlockError
        assert store.info()["pinned_entries"] == 0
