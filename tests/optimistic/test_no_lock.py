"""An optimistic block takes no lock while it runs, and user code runs under none when it ends."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.
# ruff: noqa: PT012

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager, TransactionConflictError
from latchstore.engine.inspection import table_of
from latchstore.engine.locks import ReadWriteLock
from tests.schedules import in_another_thread


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


class Label:
    """A value whose own `==` is user code: it counts, and tells whether a lock was held."""

    calls = 0

    def __init__(self, name: str, store: DictMemoryStore) -> None:
        self.name = name
        self.store = store

    def __deepcopy__(self, memo: dict[int, Any]) -> Label:
        return Label(self.name, self.store)

    def __eq__(self, other: object) -> bool:
        Label.calls += 1
        # Any lock that were held now would keep the other thread from its write.
        in_another_thread(lambda: self.store.from_bytes("written meanwhile", b""))
        return isinstance(other, Label) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


def test_the_equality_of_values_never_runs_under_a_lock() -> None:
    with DictMemoryStore(EventManager(), lock_timeout=5, indexes=["label"]) as store:
        store.set("a", (b"", {"label": Label("x", store)}))
        Label.calls = 0

        with store.transaction(optimistic=True) as tx:
            assert [key for key, _ in tx.query(label=Label("x", store))] == ["a"]
            assert Label.calls == 1
            tx.from_bytes("mark", b"")
        assert Label.calls == 1, "commit compares no such values"

        def change(other: AbstractStore) -> None:
            other.set("a", (b"", {"label": Label("y", store)}))

        def body(tx: AbstractStore) -> None:
            assert list(tx.query_keys(label=Label("z", store))) == []
            tx.from_bytes("b", b"")

        store.delete("mark")
        # It cannot be told without the value's own `==` whether it matches, so it counts as if it did.
        with pytest.raises(TransactionConflictError) as caught, store.transaction(optimistic=True) as tx:
            body(tx)
            in_another_thread(lambda: change(store))
        assert caught.value.keys == ("a",)
        assert Label.calls == 2


def test_the_error_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(TransactionConflictError("what", ("a", "b"), 3)))
    assert (str(error), error.keys, error.tries) == ("what", ("a", "b"), 3)
