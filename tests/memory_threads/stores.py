"""Ways of making a store, good ones and some that are broken on purpose.

Each check of these tests is a function over a way of making a store. It is run on `DictMemoryStore`, where
it must find nothing, and on variants that are broken on purpose, where it must find something: a check that
finds nothing there would prove nothing here. Threads meet by events and by hooks in the store's lock and
dict, so a check takes the same course each time; nothing depends on luck or on the speed of the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Generic, TypeVar, TypeVarTuple

import pytest
from readerwriterlock import rwlock

from latchstore import (
    DictMemoryStore,
    EventManager,
)
from latchstore.contract.values import Entry
from latchstore.engine.inspection import replace_entries, table_of
from latchstore.engine.locks import TableLock
from latchstore.engine.owner import Claim, Route
from latchstore.engine.table import Table
from tests.tables import Entries, NobodyOwns, with_table

#: Seconds after which a wait is a failure; no wait that succeeds takes a noticeable part of it.
TIMEOUT = 20.0

#: Seconds that a writer waits which is meant to fail.
SHORT = 0.05

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Background(threading.Thread, Generic[T]):
    """A function that runs in a thread of its own.

    Attributes
    ----------
    settled : Event
        Set when the function is done, or waits for the table lock.
    waited : bool
        Whether it has waited for the table lock.
    """

    def __init__(self, function: Callable[..., T], *arguments: Any, name: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.settled = threading.Event()
        self.waited = False
        self._function = function
        self._arguments = arguments
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._results.append(self._function(*self._arguments))
        except BaseException as error:
            self._error = error
        finally:
            self.settled.set()

    def result(self, timeout: float = TIMEOUT) -> T:
        """Wait for the end of the function; return what it returned or raise what it raised."""
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"{self.name} has not ended in {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._results[0]


class Pause:
    """Where a commit is held up halfway, and until when.

    Parameters
    ----------
    moment : str
        "put" (after an entry was put) or "remove" (before a deleted key goes).
    count : int
        How often that comes before the commit is held up, the last time included.
    """

    def __init__(self, moment: str, count: int = 1) -> None:
        self.moment = moment
        self.left = count
        self.armed = False
        self.arrived = threading.Event()
        self.go_on = threading.Event()

    def reach(self, moment: str) -> None:
        if self.armed and moment == self.moment:
            self.left -= 1
            if self.left == 0:
                self.armed = False
                self.hold()

    def hold(self) -> None:
        self.arrived.set()
        assert self.go_on.wait(TIMEOUT), "a commit that was held up was forgotten"


class HaltingDict(Entries):
    """The store's dict, to which a commit is applied key by key, and which can be held up at each."""

    def __init__(self, pause: Pause) -> None:
        super().__init__()
        self.pause = pause
        self.after_read: Callable[[], object] | None = None

    def __getitem__(self, key: str, /) -> Any:
        entry = super().__getitem__(key)
        # Once only: what is called here reads, too.
        hook, self.after_read = self.after_read, None
        if hook is not None:
            hook()
        return entry

    def pop(self, *arguments: Any) -> Any:
        self.pause.reach("remove")
        return super().pop(*arguments)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.pause.reach("put")


def note_waiting() -> None:
    """Note that the calling thread has to wait, if it is a `Background`."""
    thread = threading.current_thread()
    if isinstance(thread, Background):
        thread.waited = True
        thread.settled.set()


class WatchedTableLock(TableLock):
    """The table lock, which notes who has to wait for it."""

    __slots__ = ()

    def wait_for_writer(self, purpose: str, timeout: float | None = None) -> None:
        note_waiting()
        super().wait_for_writer(purpose, timeout)


class WatchedHandle:
    """A handle of a lock of the library, which notes who has to wait."""

    def __init__(self, handle: Any, released: Callable[[], object]) -> None:
        self._handle = handle
        self._released = released
        self.locked: Callable[[], bool] = handle.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._handle.acquire(False):
            return True
        note_waiting()
        return blocking and bool(self._handle.acquire(blocking, timeout))

    def release(self) -> None:
        self._handle.release()
        self._released()


class WatchedLock:
    """A lock of the library, whose handles note who has to wait.

    Parameters
    ----------
    released : callable
        Called when the write side was given back.
    """

    def __init__(self, released: Callable[[], object] = lambda: None) -> None:
        self._lock = rwlock.RWLockFair()
        self._released = released

    def gen_rlock(self) -> WatchedHandle:
        return WatchedHandle(self._lock.gen_rlock(), lambda: None)

    def gen_wlock(self) -> WatchedHandle:
        return WatchedHandle(self._lock.gen_wlock(), self._released)


Make = Callable[..., DictMemoryStore]


def made(
    pause: Pause | None, options: Mapping[str, Any], table_class: type[Table] | None = None
) -> DictMemoryStore:
    """Return a new store whose waits are noted, and that can be held up in the middle of a commit."""
    store = DictMemoryStore(EventManager(), **{"lock_timeout": TIMEOUT, **options})
    table_of(store).latches.table.__class__ = WatchedTableLock
    if pause is not None:
        replace_entries(store, HaltingDict(pause))
    if table_class is not None:
        with_table(store, table_class)
    return store


# -- the store, and what is broken on purpose ------------------------------------------------------


def guarded(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options)


def guarded_by_the_library(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, {"lock_class": WatchedLock, **options})


class NoTableLock(Table):
    """Lets readers of several keys in at any time, and others who look."""

    __slots__ = ()

    def read(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return function(*arguments)

    def exclusively(self, operation: str | Claim, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return function(*arguments)


def without_table_lock(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NoTableLock)


class NoGate(Table):
    """Lets lock-free readers pass while a commit is applied."""

    __slots__ = ()

    def finish(self) -> None:
        journal: Any = self.journal
        if journal[-1] is not None:
            self.journal = (*journal[:-1], journal[-1]._replace(gate=None))
        super().finish()


def without_gate(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NoGate)


class Unguarded(NoGate, NoTableLock):
    """Lets everybody in at any time."""

    __slots__ = ()


def unguarded(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, Unguarded)


def without_owner(pause: Pause | None = None, **options: Any) -> DictMemoryStore:
    return made(pause, options, NobodyOwns)


class NoBatch(DictMemoryStore):
    """Writes straight through a transaction, so that others see what is not committed."""

    def transaction(self, *arguments: Any, **options: Any) -> Any:
        return nullcontext(self)


class DirtyReads(DictMemoryStore):
    """Shows what an open transaction has written to whoever reads a single key."""

    def _entry(self, key: str) -> Entry:
        for route in list(self._engine.routes.values()):
            assert isinstance(route, Route)
            assert route.batch is not None
            entry = route.batch.current(key)
            if entry is not None:
                return entry
        return super()._entry(key)

    def exists(self, key: str) -> bool:
        try:
            self._entry(key)
        except KeyError:
            return False
        return True

    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        return self._entry(key).data


class LiveQuery(DictMemoryStore):
    """Walks over the dict itself while others change it."""

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        return self._entries.items()


class LiveMetadata(DictMemoryStore):
    """Hands out what it holds."""

    def get_metadata(self, key: str, select: Iterable[str] | None = None) -> dict[str, Any]:
        return self._entry(key)

    def query(
        self, select: Iterable[str] | None = None, **options: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter([(key, self._entry(key)) for key in self.query_keys(**options)])


with_both_locks = pytest.mark.parametrize("make", [guarded, guarded_by_the_library])
