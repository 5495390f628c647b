"""What an optimistic transaction writes, merged with the commits of others; it holds up nobody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreKeyEvent
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock
from tests.optimistic.conflicts import CHANGES, Writing, conflict
from tests.schedules import Actor, in_another_thread

# -- writing ----------------------------------------------------------------------------------------------


BLIND: dict[str, Writing] = {
    "set": lambda tx: tx.set("doc/1", (b"mine", {"by": "me"})),
    "set_data": lambda tx: tx.set_data("doc/1", b"mine"),
    "set_metadata": lambda tx: tx.set_metadata("doc/1", {"by": "me"}),
    "from_bytes": lambda tx: tx.from_bytes("doc/1", b"mine"),
    "multiset": lambda tx: tx.multiset(["doc/1"], [(b"mine", {"by": "me"})]),
    "multiset_data": lambda tx: tx.multiset_data(["doc/1"], [b"mine"]),
    "multiset_metadata": lambda tx: tx.multiset_metadata(["doc/1"], [{"by": "me"}]),
    "set and get": lambda tx: (tx.set("doc/1", (b"mine", {"by": "me"})), tx.get("doc/1")),
    "set, delete, set_data": lambda tx: (
        tx.set("doc/1", (b"", {})),
        tx.delete("doc/1"),
        tx.set_data("doc/1", b"mine"),
    ),
    "set and update_metadata": lambda tx: (
        tx.set("doc/1", (b"mine", {})),
        tx.update_metadata("doc/1", {"by": "me"}),
    ),
}

#: Data and metadata of the key when the others have changed it first.
WHOLE, DATA, METADATA = (b"mine", {"by": "me"}), (b"mine", None), (None, {"by": "me"})
RESULTS: dict[str, tuple[bytes | None, dict[str, Any] | None]] = {
    "set": WHOLE,
    "set_data": DATA,
    "set_metadata": METADATA,
    "from_bytes": DATA,
    "multiset": WHOLE,
    "multiset_data": DATA,
    "multiset_metadata": METADATA,
    "set and get": WHOLE,
    "set, delete, set_data": (b"mine", {}),
    "set and update_metadata": WHOLE,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("blind", BLIND)
def test_blind_writes_never_conflict_and_merge(store: DictMemoryStore, blind: str, change: str) -> None:
    """What the block has set is as it has set it; what it has not, as the others have left it."""
    with DictMemoryStore(EventManager()) as alone:
        alone.set("doc/1", store.get("doc/1"))
        CHANGES[change](alone)
        theirs = (
            (alone.to_bytes("doc/1"), alone.get_metadata("doc/1")) if alone.exists("doc/1") else (b"", {})
        )
    assert conflict(store, BLIND[blind], CHANGES[change]) == ()
    data, metadata = RESULTS[blind]
    assert store.to_bytes("doc/1") == (theirs[0] if data is None else data)
    assert store.get_metadata("doc/1") == (theirs[1] if metadata is None else metadata)


def test_data_by_one_and_metadata_by_the_other(store: DictMemoryStore) -> None:
    with Actor(store) as a, Actor(store) as b:
        a.begin(optimistic=True)
        b.begin(optimistic=True)
        a.do(lambda: store.set_data("doc/1", b"by a"))
        b.do(lambda: store.set_metadata("doc/1", {"by": "b"}))
        a.commit()
        b.commit()
    assert (store.to_bytes("doc/1"), store.get_metadata("doc/1")) == (b"by a", {"by": "b"})


def test_times_and_revision_are_those_of_the_commit(store: DictMemoryStore) -> None:
    heard: list[Any] = []
    store.event_manager.connect(StoreKeyEvent, heard.append)
    with store.transaction(optimistic=True) as tx:
        tx.set("doc/1", (b"mine", {}))
        in_another_thread(lambda: store.set("doc/1", (b"theirs", {})))
        theirs = in_another_thread(lambda: store.get("doc/1"))
    store.flush()
    mine = store.get("doc/1")
    assert (mine.created, mine.revision) == (theirs.created, tx.revision)
    assert mine.modified > theirs.modified
    assert (theirs.revision, tx.revision) == (2, 3)
    previous = heard[-1].previous
    assert previous.data.read() == b"theirs", "the event tells what was replaced, not what the block saw"


def test_values_handed_out_inside_stay_as_they_were(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True) as tx:
        tx.set("doc/1", (b"mine", {"n": 1}))
        inside = tx.get("doc/1")
        facts = (inside.created, inside.modified, inside.revision)
        in_another_thread(lambda: store.from_bytes("image", b"theirs"))
    assert (inside.created, inside.modified, inside.revision) == facts
    assert store.get("doc/1").revision == tx.revision


def test_own_writes_are_seen_in_every_way(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True) as tx:
        in_another_thread(lambda: store.set("theirs", (b"", {"kind": "document"})))
        tx.set("doc/3", (b"three", {"kind": "document", "n": 3}))
        tx.delete("doc/1")
        tx.update_metadata("doc/2", {"kind": "draft"})
        tx.set_data("image", b"new")
        for view in (tx, store):
            assert sorted(view.query_keys()) == ["doc/2", "doc/3", "image"]
            assert sorted(view.glob("doc/*")) == ["doc/2", "doc/3"]
            assert dict(view.query(["n"], kind="document")) == {"doc/3": {"n": 3}}
            assert list(view.query_keys(kind="draft")) == ["doc/2"]
            assert len(view) == 3
            assert ("doc/1" in view, "doc/3" in view, "theirs" in view) == (False, True, False)
            assert [value.read() for value in view.multiget_data(["doc/3", "image"])] == [b"three", b"new"]
            assert view.get_metadata("doc/2") == {"kind": "draft", "n": 2}
            with pytest.raises(KeyError):
                view.get("doc/1")
        # Both views were scanned, and somebody has come in between: let it go.
        tx.rollback()
    assert sorted(store.query_keys()) == ["doc/1", "doc/2", "image", "theirs"]


def test_savepoints(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True):
        store.set_data("doc/1", b"outer")
        with store.transaction() as inner:
            store.set_data("doc/1", b"inner")
            store.set_data("doc/2", b"inner")
            store.from_bytes("new", b"inner")
            inner.doom()
        assert store.to_bytes("doc/2") == b"two"
        with store.transaction():
            store.set_data("image", b"inner")
    assert {key: store.to_bytes(key) for key in store.glob("*")} == {
        "doc/1": b"outer",
        "doc/2": b"two",
        "image": b"inner",
    }


def test_a_multiset_that_fails_halfway_leaves_the_block_as_it_was(store: DictMemoryStore) -> None:
    with store.transaction(optimistic=True):
        store.from_bytes("a", b"")
        with pytest.raises(KeyError):
            store.multiupdate_metadata(["doc/1", "none"], [{"n": 5}, {"n": 5}])
        assert store.get_metadata("doc/1")["n"] == 1
    assert store.exists("a")
    assert store.get_metadata("doc/1")["n"] == 1


# -- nobody is held up --------------------------------------------------------------------------------------


class CountingLock(ReadWriteLock):
    """A table lock that can be told to refuse everybody."""

    refusing = False

    def _refuse(self, *arguments: object, **options: object) -> bool:
        raise AssertionError("a lock was asked for")

    def gen_rlock(self) -> Any:
        return self._guarded(super().gen_rlock())

    def gen_wlock(self) -> Any:
        return self._guarded(super().gen_wlock())

    def _guarded(self, handle: Any) -> Any:
        lock, acquire = self, handle.acquire

        def guarded(*arguments: Any, **options: Any) -> bool:
            return lock._refuse() if lock.refusing else acquire(*arguments, **options)

        return SimpleNamespace(acquire=guarded, release=handle.release, locked=handle.locked)


def test_the_body_takes_no_lock() -> None:
    lock = CountingLock()
    with DictMemoryStore(EventManager(), lock_class=lambda: lock) as store:
        store.set("a", (b"", {"kind": "document"}))
        with store.transaction(optimistic=True) as tx:
            lock.refusing = True
            assert table_of(store).latches.writer.describe() == "which is free now"
            for view in (tx, store):
                view.get("a")
                view.exists("b")
                list(view.multiget(["a"]))
                list(view.query(kind="document"))
                list(view.glob("*"))
                len(view)
                view.set("c", (b"", {}))
                view.multiset_data(["d", "e"], [b"", b""])
                view.update_metadata("a", {"n": 1})
                view.delete("c")
                with view.transaction():
                    view.from_bytes("f", b"")
            lock.refusing = False
        assert sorted(store.glob("*")) == ["a", "d", "e", "f"]


def test_writers_and_readers_go_on_while_the_body_runs(store: DictMemoryStore) -> None:
    with Actor(store) as a, Actor(store) as b, Actor(store) as c:
        for actor in (a, b):
            actor.begin(optimistic=True)
            actor.do(lambda: store.from_bytes("image", b"optimistic"))
        c.begin(timeout=0)
        c.do(lambda: store.from_bytes("doc/1", b"exclusive"))
        c.commit()
        assert store.to_bytes("doc/1") == b"exclusive"
        assert len(list(store.query())) == 3
        a.commit()
        b.commit()
    assert store.to_bytes("image") == b"optimistic"
