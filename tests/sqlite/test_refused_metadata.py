"""Metadata that cannot be stored is refused by the call that has it, whatever it is part of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl")

from latchstore import CodecError, EventManager, LockTimeoutError, SqliteStore, WorkQueue
from tests.schedules import in_another_thread

#: What cannot be stored, and what is raised.
REFUSED = [(object(), TypeError), ([1, {"a": object()}], TypeError), (10**5_000, ValueError)]

CALLS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "set": lambda store, bad: store.set("k", (b"", bad)),
    "set if": lambda store, bad: store.set("k", (b"", bad), if_revision=1),
    "set_metadata": lambda store, bad: store.set_metadata("k", bad),
    "update_metadata": lambda store, bad: store.update_metadata("k", bad),
    "multiset": lambda store, bad: store.multiset(["a", "k"], [(b"", {}), (b"", bad)]),
    "multiset_metadata": lambda store, bad: store.multiset_metadata(["a", "k"], [{}, bad]),
    "multiupdate_metadata": lambda store, bad: store.multiupdate_metadata(["k"], [bad]),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "store", EventManager(), durability="off", lock_timeout=0.05) as store:
        store.set("k", (b"1", {"n": 1}))
        yield store


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=["object", "nested", "int"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("optimistic", [False, True])
def test_in_a_transaction(
    store: SqliteStore, call: Callable[..., Any], value: Any, kind: type[Exception], optimistic: bool
) -> None:
    with store.transaction(optimistic=optimistic):
        store.set("b", (b"2", {}))
        with pytest.raises(kind, match=r"^key 'k': the metadata item 'item' cannot be stored"):
            call(store, {"fine": 1, "item": value})
        assert not store.exists("a")
        store.set("c", (b"3", {}))
    assert sorted(store.query_keys()) == ["b", "c", "k"]
    assert store.get_metadata("k") == {"n": 1}


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=["object", "nested", "int"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_before_it_waits_for_others(
    store: SqliteStore, call: Callable[..., Any], value: Any, kind: type[Exception]
) -> None:
    def in_vain() -> None:
        with pytest.raises(kind, match=r"^key 'k': the metadata item 'item' cannot be stored"):
            call(store, {"item": value})
        with pytest.raises(LockTimeoutError):
            call(store, {"item": 1})

    with store.transaction():
        in_another_thread(in_vain)


def in_a_block(store: SqliteStore) -> None:
    with store.transaction():
        store.set("a", (b"", {}))
        store.set("k", (b"", {"item": object()}))


def test_in_a_savepoint(store: SqliteStore) -> None:
    with store.transaction():
        with pytest.raises(TypeError, match="'item'"):
            in_a_block(store)
        store.set("b", (b"", {}))
    assert sorted(store.query_keys()) == ["b", "k"]


def test_put_of_a_queue(store: SqliteStore) -> None:
    queue: WorkQueue[Any] = WorkQueue(store, "jobs")
    with store.transaction():
        with pytest.raises(CodecError, match=r"^queue 'jobs', job '.*object"):
            queue.put(object())
        with pytest.raises(TypeError, match=r"^key 'jobs/.*: the metadata item 'item' cannot be stored"):
            queue.put(1, metadata={"item": object()})
        queue.put(1)
    job = queue.claim(timeout=0)
    assert job is not None
    assert job.payload == 1
