"""Writers that wait for room in a full queue of events."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from latchstore.delivery.waiting import Waiters
from latchstore.engine.inspection import dispatcher_of, table_of
from tests.schedules import in_another_thread

#: Seconds after which a wait has failed.
TIMEOUT = 20.0

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.05


class Permitted:
    """A listener that hears one event for each permit."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._permits = threading.Semaphore(0)
        self._begun = 0
        self._begun_one = threading.Condition()

    def permit(self, events: int) -> None:
        self._permits.release(events)

    def listen(self, event: Any) -> None:
        with self._begun_one:
            self._begun += 1
            self._begun_one.notify_all()
        assert self._permits.acquire(timeout=TIMEOUT)
        self.heard.append(event.key)

    def wait_until_begun(self, events: int) -> None:
        """Wait until it has been called so many times, so that the dispatcher is done with all before."""
        with self._begun_one:
            assert self._begun_one.wait_for(lambda: self._begun >= events, TIMEOUT)


class Door(Waiters):
    """Where writers wait for room; tells when somebody does.

    Parameters
    ----------
    deaf : bool
        Whether all wake-ups are missed.
    """

    def __init__(self, deaf: bool = False) -> None:
        super().__init__()
        self.deaf = deaf
        self.waiting = threading.Semaphore(0)

    def wait(
        self, ready: Callable[[], object], timeout: float, yields: int = 0, look_again: float = 1.0
    ) -> bool:
        def look() -> object:
            found = ready()
            if not found:
                self.waiting.release()
            return found

        return super().wait(look, timeout, yields, look_again)

    def ring(self) -> None:
        if not self.deaf:
            super().ring()


class Crowd:
    """A store, the listener that holds up its queue, and threads for writers that will wait.

    Parameters
    ----------
    limit : int or None
        The store's `max_pending_events`.
    lock_timeout : float
        The store's.
    deaf : bool
        Whether all wake-ups are missed.
    """

    def __init__(self, limit: int | None = 1, lock_timeout: float = TIMEOUT, deaf: bool = False) -> None:
        self.manager = EventManager()
        self.store = DictMemoryStore(self.manager, max_pending_events=limit, lock_timeout=lock_timeout)
        self.listener = Permitted()
        self.manager.connect(StoreModificationEvent, self.listener.listen)
        self.door = dispatcher_of(self.store).room = Door(deaf)
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="writer")
        self._written = 0

    def write(self, events: int) -> None:
        """Write so many keys, each a commit of its own; the first is being heard when this returns."""
        for number in range(self._written, self._written + events):
            self.store.from_bytes(f"k{number}", b"")
            # What is taken from the queue and not yet being heard would not be counted for a moment.
            self.listener.wait_until_begun(len(self.listener.heard) + 1)
        self._written += events

    def start(self, step: Callable[[], Any]) -> Future[Any]:
        """Run a step in a thread of its own; return when it waits at the door."""
        future = self._executor.submit(step)
        assert self.door.waiting.acquire(timeout=TIMEOUT)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.listener.permit(100_000)
        self._executor.shutdown()
        self.store.close(TIMEOUT)


@contextmanager
def changes_nothing(store: DictMemoryStore) -> Iterator[None]:
    """Check that a block leaves no trace in the store: no change, no event, no lock, no snapshot."""

    def facts() -> dict[str, Any]:
        entries = {key: (store.to_bytes(key), store.get_metadata(key)) for key in store.query_keys()}
        return {"info": store.info(), "entries": entries}

    before = in_another_thread(facts)
    yield
    assert in_another_thread(facts) == before
    assert table_of(store).latches.writer.claim is None


def in_a_transaction(store: DictMemoryStore, **options: Any) -> None:
    with store.transaction("a block", **options):
        store.from_bytes("k0", b"new")


#: Ways to change the key "k0", or to make two others.
WRITES: dict[str, Callable[[DictMemoryStore], object]] = {
    "from_bytes": lambda store: store.from_bytes("k0", b"new"),
    "set": lambda store: store.set("k0", (b"new", {"n": 1})),
    "set from a stream": lambda store: store.set("k0", (io.BytesIO(b"new"), {})),
    "set_metadata": lambda store: store.set_metadata("k0", {"n": 1}),
    "update_metadata": lambda store: store.update_metadata("k0", {"n": 1}),
    "delete": lambda store: store.delete("k0"),
    "multiset_data": lambda store: store.multiset_data(["a", "b"], [b"", b""]),
    "multiupdate_metadata": lambda store: store.multiupdate_metadata(["k0"], [{"n": 1}]),
    "transaction": in_a_transaction,
    "transaction, optimistic": lambda store: in_a_transaction(store, optimistic=True),
}
