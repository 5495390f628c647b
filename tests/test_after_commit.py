"""Nothing that can fail stands between a commit and its return: not the start of a thread, and no log."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import BaseEvent, Cache, DictMemoryStore, EventManager, StoreEvent, StoreKeyEvent

TIMEOUT = 20.0


def in_transaction(store: DictMemoryStore, optimistic: bool = False) -> None:
    with store.transaction("t", optimistic=optimistic):
        store.from_bytes("a", b"new")
        with store.transaction("inner"):
            store.from_bytes("b", b"new")


def committed_early(store: DictMemoryStore) -> None:
    with store.transaction() as tx:
        tx.from_bytes("a", b"new")
        tx.commit()


def rolled_back(store: DictMemoryStore) -> None:
    with store.transaction() as tx:
        tx.from_bytes("a", b"new")
        tx.doom()


def attempted(store: DictMemoryStore) -> None:
    for attempt in store.attempts():
        with attempt as tx:
            tx.from_bytes("a", b"new")


def called_later(store: DictMemoryStore) -> None:
    store.call_later(0, lambda: None)
    store.from_bytes("a", b"new")


def connected(store: DictMemoryStore) -> None:
    store.close(TIMEOUT)
    store.connect()
    store.from_bytes("a", b"new")


def cached(store: DictMemoryStore) -> Cache[Any]:
    return Cache(store, max_entries=2, ttl=60)


#: All that commits, or makes events; each changes something.
WRITES: dict[str, Callable[[DictMemoryStore], object]] = {
    "set": lambda store: store.set("a", (b"new", {})),
    "set from a stream": lambda store: store.set("a", (io.BytesIO(b"new"), {})),
    "set_data": lambda store: store.set_data("a", b"new"),
    "set_metadata": lambda store: store.set_metadata("a", {"n": 2}),
    "update_metadata": lambda store: store.update_metadata("a", {"n": 2}),
    "from_bytes": lambda store: store.from_bytes("a", b"new"),
    "delete": lambda store: store.delete("a"),
    "evict": lambda store: store.evict("a"),
    "multiset": lambda store: store.multiset(["a", "b"], [(b"new", {})] * 2),
    "multiset_data": lambda store: store.multiset_data(["a", "b"], [b"new"] * 2),
    "multiset_metadata": lambda store: store.multiset_metadata(["a", "b"], [{"n": 2}] * 2),
    "multiupdate_metadata": lambda store: store.multiupdate_metadata(["a", "b"], [{"n": 2}] * 2),
    "exclusive": in_transaction,
    "optimistic": lambda store: in_transaction(store, True),
    "commit()": committed_early,
    "rolled back": rolled_back,
    "attempts": attempted,
    "transactional": lambda store: store.transactional()(lambda: store.from_bytes("a", b"new"))(),
    "mapping": lambda store: store.mapping().update({"a": b"new", "b": b"new"}),
    "cache.set": lambda store: cached(store).set("a", b"new", tags=["t"]),
    "cache.set_many": lambda store: cached(store).set_many({"c": b"new", "d": b"new", "e": b"new"}),
    "cache.get_or_load": lambda store: cached(store).get_or_load("c", lambda key: b"new"),
    "cache.modify": lambda store: cached(store).modify("a", lambda value: b"new"),
    "cache.delete": lambda store: cached(store).delete("a"),
    "cache.clear": lambda store: cached(store).clear(),
    "cache.memoize": lambda store: cached(store).memoize()(lambda: b"new")(),
    "call_later": called_later,
    "connect": connected,
}


class Fault(logging.Filter):
    """A filter that fails, as no log is to harm a write either."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise OSError("the log is full")


@pytest.fixture
def failing_log() -> Iterator[None]:
    logger, fault = logging.getLogger("latchstore"), Fault()
    logger.addFilter(fault)
    yield
    logger.removeFilter(fault)


def keys(events: list[BaseEvent]) -> list[str]:
    return [event.key for event in events if isinstance(event, StoreKeyEvent)]


#: What prevents the start of a thread: where, and with what.
FAILURES: dict[str, tuple[str, BaseException]] = {
    "no more threads": ("start", RuntimeError("can't start new thread")),
    "an isolated subinterpreter": (
        "__init__",
        RuntimeError("no daemon threads here"),
    ),
    "no memory": ("start", MemoryError()),
}


@pytest.mark.usefixtures("failing_log")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_made_and_returns_though_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, write: str, failure: str
) -> None:
    store, heard = DictMemoryStore(EventManager(), indexes=["n"]), list[BaseEvent]()
    store.multiset(["a", "b"], [(b"", {"n": 1})] * 2)
    method, error = FAILURES[failure]

    def fail(*arguments: Any, **more: Any) -> None:
        raise error

    store.event_manager.connect(StoreEvent, heard.append)
    monkeypatch.setattr(threading.Thread, method, fail)
    before = store.info()["revision"]
    WRITES[write](store)
    assert (store.info()["revision"] > before) == (write != "rolled back")
    watching = store.watch()
    store.from_bytes("last", b"")
    assert len(watching) >= 1  # a cache may evict as well
    store.flush(TIMEOUT)  # delivers on this thread
    assert "last" in keys(heard)
    revisions = [event.revision for event in heard if isinstance(event, StoreEvent) and event.revision]
    assert revisions == sorted(revisions)
    assert revisions[-1] == store.info()["revision"]
    monkeypatch.undo()
    store.from_bytes("again", b"")
    store.close(TIMEOUT)
    assert "again" in keys(heard)
