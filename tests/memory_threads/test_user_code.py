"""User code and listeners never run under a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from latchstore import (
    BaseEvent,
    DictMemoryStore,
    EventManager,
    LockTimeoutError,
    StoreSetEvent,
)
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.publishing import Publisher
from tests.memory_threads.stores import SHORT, TIMEOUT, Background, T, guarded


class UserCodeUnderLock(DictMemoryStore):
    """Holds the read side of the table lock from the beginning to the end of every call."""

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        public = not name.startswith("_") and callable(attribute)
        # Calls of the thread that user code starts are left alone: they are the ones that must get in.
        if not public or threading.current_thread().name == "guest":
            return attribute

        def run(*arguments: Any, **options: Any) -> Any:
            result = attribute(*arguments, **options)
            return list(result) if isinstance(result, Iterator) else result

        return lambda *arguments, **options: self._table.read(lambda: run(*arguments, **options))


def publish_at_once(
    publisher: Publisher, changes: object, revision: int, claim: object, deliveries: Iterable[Delivery]
) -> None:
    """Call the listeners, and queue nothing for them, in the section that makes the commit."""
    for delivery in deliveries:
        delivery.deliver(publisher.dispatcher)


# -- user code never runs under a lock -------------------------------------------------------------


class Visit:
    """What user code does in these tests: it has another thread use the store, and waits for it.

    Does nothing before ``begin`` is called.
    """

    def __init__(self, store: DictMemoryStore) -> None:
        self.store = store
        self.begun = False
        self.calls = 0
        self.failures: list[str] = []

    def __call__(self) -> None:
        if not self.begun:
            return
        self.calls += 1
        if self.failures:
            return  # one is enough, and each takes its time
        try:
            Background(self._use, name="guest").result()
        except Exception as error:
            self.failures.append(repr(error))

    def _use(self) -> None:
        store = self.store
        store.from_bytes("guest", b"1")
        with store.transaction("of the guest"):
            store.set("guest", (b"2", {"by": "guest"}))
            store.set("guest too", (b"2", {"by": "guest"}))
        assert store.to_bytes("guest") == b"2"
        assert set(store.query_keys(by="guest")) == {"guest", "guest too"}
        assert len(store) >= 2
        assert "guest" in set(store.glob("g*"))
        assert len(list(store.multiget(["guest", "guest too"]))) == 2
        store.delete("guest too")


class VisitingStream:
    """A stream of two blocks."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._blocks = [b"a", b"b"]

    def read(self, size: int = -1, /) -> bytes:
        self._visit()
        return self._blocks.pop(0) if self._blocks else b""


class Visiting:
    """Metadata that is copied, compared and hashed by code of its own."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __deepcopy__(self, memo: object) -> Visiting:
        self._visit()
        return Visiting(self._visit)

    def __eq__(self, other: object) -> bool:
        self._visit()
        return isinstance(other, Visiting)

    def __hash__(self) -> int:
        self._visit()
        return 1


class VisitingKey(str):
    """A key with a hash and an equality of its own."""

    __slots__ = ("visit",)
    visit: Visit

    def __hash__(self) -> int:
        self.visit()
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        self.visit()
        return str.__eq__(self, other)


class VisitingMapping(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __getitem__(self, name: str) -> Any:
        self._visit()
        return {"name": 1}[name]

    def __iter__(self) -> Iterator[str]:
        self._visit()
        return iter(["name"])

    def __len__(self) -> int:
        return 1


def visiting(visit: Visit, items: Iterable[T]) -> Iterator[T]:
    for item in items:
        visit()
        yield item


def visiting_key(visit: Visit) -> str:
    key = VisitingKey("held")
    key.visit = visit
    return key


UserCode = Callable[[DictMemoryStore, Visit], object]

#: Calls that run the caller's code, of a store that has the key "held" with a `Visiting` in its metadata.
USER_CODE: dict[str, UserCode] = {
    "stream of set": lambda store, visit: store.set("key", (VisitingStream(visit), {})),
    "stream of set_data": lambda store, visit: store.set_data("key", VisitingStream(visit), 1),
    "stream of multiset": lambda store, visit: store.multiset(["a", "b"], [(VisitingStream(visit), {})] * 2),
    "stream of multiset_data": lambda store, visit: store.multiset_data(["a"], [VisitingStream(visit)]),
    "keys of multiset": lambda store, visit: store.multiset(visiting(visit, "ab"), [(b"", {})] * 2),
    "values of multiset": lambda store, visit: store.multiset(["a", "b"], visiting(visit, [(b"", {})] * 2)),
    "keys of multiset_data": lambda store, visit: store.multiset_data(visiting(visit, "ab"), [b""] * 2),
    "keys of multiset_metadata": lambda store, visit: store.multiset_metadata(
        visiting(visit, "ab"), [{}] * 2
    ),
    "metadata of multiset_metadata": (
        lambda store, visit: store.multiset_metadata(["a"], [VisitingMapping(visit)])
    ),
    "keys of multiupdate_metadata": (
        lambda store, visit: store.multiupdate_metadata(visiting(visit, ["held"]), [{"n": 1}])
    ),
    "keys of multiget": lambda store, visit: list(store.multiget(visiting(visit, ["held"]))),
    "keys of multiget_data": lambda store, visit: list(store.multiget_data(visiting(visit, ["held"]))),
    "keys of multiget_metadata": (
        lambda store, visit: list(store.multiget_metadata(visiting(visit, ["held"]), ["n"]))
    ),
    "select of get_metadata": lambda store, visit: store.get_metadata("held", visiting(visit, ["n"])),
    "select of query": lambda store, visit: list(store.query(visiting(visit, ["n"]))),
    "mapping of set": lambda store, visit: store.set("key", (b"", VisitingMapping(visit))),
    "mapping of set_metadata": lambda store, visit: store.set_metadata("key", VisitingMapping(visit)),
    "mapping of update_metadata": lambda store, visit: store.update_metadata("held", VisitingMapping(visit)),
    "copy in, set": lambda store, visit: store.set("key", (b"", {"own": Visiting(visit)})),
    "copy in, set_metadata": lambda store, visit: store.set_metadata("key", {"own": Visiting(visit)}),
    "copy in, update_metadata": lambda store, visit: store.update_metadata("held", {"own": Visiting(visit)}),
    "copy out, get": lambda store, visit: store.get("held").metadata,
    "copy out, get_metadata": lambda store, visit: store.get_metadata("held"),
    "copy out, multiget_metadata": lambda store, visit: list(store.multiget_metadata(["held"])),
    "copy out, query": lambda store, visit: list(store.query(n=1)),
    "copy out, indexed query": lambda store, visit: list(store.query(kind="held")),
    "comparison, value asked for": lambda store, visit: list(store.query_keys(n=Visiting(visit))),
    "comparison, value of an index": lambda store, visit: list(store.query_keys(kind=Visiting(visit))),
    "comparison, value held": lambda store, visit: list(store.query_keys(own=1)),
    "comparison, value held in an index": lambda store, visit: list(store.query_keys(indexed=1)),
    "key of get": lambda store, visit: store.get_metadata(visiting_key(visit), ()),
    "on_commit": lambda store, visit: commit_with(store, visit),
    "on_rollback": lambda store, visit: roll_back_with(store, visit),
}


def commit_with(store: DictMemoryStore, visit: Visit) -> None:
    with store.transaction() as transaction:
        transaction.on_commit(visit)
        store.set("key", (b"", {}))


def roll_back_with(store: DictMemoryStore, visit: Visit) -> None:
    with store.transaction() as transaction:
        transaction.on_rollback(visit)
        store.set("key", (b"", {}))
        transaction.doom()


def user_code_that_had_to_wait(
    store: DictMemoryStore, name: str, broken: bool = False
) -> tuple[int, list[str]]:
    """Make one call; return how often it ran user code, and what that could not do meanwhile."""
    store.add_index("kind")
    store.add_index("indexed")
    visit = Visit(store)
    held = {"n": 1, "kind": "held", "own": Visiting(visit), "indexed": Visiting(visit)}
    store.set("held", (b"", held))
    visit.begun = True
    if broken:
        # Not before, or the calls that set the scene would wait for themselves.
        store.__class__ = UserCodeUnderLock
    # A broken store's writer waits for its own read lock.
    with suppress(LockTimeoutError) if broken else nullcontext():
        USER_CODE[name](store, visit)
    return visit.calls, visit.failures


#: What runs no user code inside a call of the store's.
AFTER_THE_CALL = ("copy out, get", "on_commit", "on_rollback")


@pytest.mark.parametrize("name", USER_CODE)
def test_user_code_runs_outside_all_locks(name: str) -> None:
    calls, failures = user_code_that_had_to_wait(guarded(), name)
    assert failures == []
    assert calls > 0


@pytest.mark.parametrize("name", [name for name in USER_CODE if name not in AFTER_THE_CALL])
def test_user_code_under_a_lock_is_noticed(name: str) -> None:
    store = DictMemoryStore(EventManager(), lock_timeout=SHORT)
    calls, failures = user_code_that_had_to_wait(store, name, broken=True)
    assert calls > 0
    assert failures
    assert "LockTimeoutError" in failures[0]


def listeners_that_had_to_wait(make: Callable[[], DictMemoryStore]) -> list[str]:
    store = make()
    visit = Visit(store)
    visit.begun = True

    def listener(event: BaseEvent) -> None:
        visit()

    store.event_manager.connect(StoreSetEvent, listener, filter={"key": "key"})
    store.set("key", (b"", {}))
    store.flush(TIMEOUT)
    assert visit.calls == 1
    return visit.failures


def test_listeners_run_outside_all_locks() -> None:
    assert listeners_that_had_to_wait(guarded) == []


def test_listeners_under_the_table_lock_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "publish", publish_at_once)
    (failure,) = listeners_that_had_to_wait(lambda: guarded(lock_timeout=SHORT))
    assert "LockTimeoutError" in failure
