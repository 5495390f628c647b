"""The table lock: many readers of several keys, or one commit.

====== ================ ==================================================== ======================
order  lock             what it guards                                       held for
====== ================ ==================================================== ======================
1      table lock       entries, indexes, journal, owner, pre-images, the    microseconds; no user
                        books of bounds, and the change feed (``table.py``)  code, no waiting
2      buffer lock      the changes that one watch has not read              microseconds
       (change_feed.py)
3      latches          starting the dispatcher's thread; the counts of a    microseconds
                        cache's threads (``delivery/waiting.py``)
====== ================ ==================================================== ======================

These are the locks of the engine in memory; ``sqlite/engine.py`` has those of a store in a file. A lock is
only taken while holding locks above it in this table. The right to commit that an exclusive transaction has
for its whole block, user code included, is no lock: it is a field under the table lock, the owner
(``owner.py``).

Thread safety:

1. A writer takes the mutex, which is written in C, by ``with``, then sets `holder` to its thread's
   identifier, then waits for the `readers` that it finds. A reader puts itself among the readers, and then
   looks whether there is a holder; if so it takes itself away again, and waits. So of a reader and a writer
   that come at the same time one at least finds the other.
2. `holder` is set right after the mutex was taken and taken back right before it is given back; CPython runs
   no signal handler and no finalizer in between, as it does that when calls return, when functions are
   entered and at backward jumps (for 3.14, whose ``with`` begins with a call, see ``contract/with_lock.py``).
   So whoever comes in the middle of a section of its own thread finds that, and is refused instead of
   waiting for itself. Readers are found in the same way: each has its thread's identifier.
3. A reader is taken away by the first operation of a ``finally``, one call in C.
4. Nobody sleeps in the mutex while it is held for long: a thread that finds a holder lets others run, then
   sleeps for moments, and takes the mutex when it is free. A thread that is woken with the mutex in its hands
   has to wait for the interpreter, and with it all who need the mutex: a convoy (Blasgen, Gray, Mitoma and
   Price, ACM SIGOPS Operating Systems Review 13(2), 1979).
5. Every wait ends: with the lock, or with an error that names the holder.
6. The end of a ``with`` calls ``__exit__`` with a tuple of three, and if there is no memory for that the
   mutex stays taken (measured on 3.11 to 3.13). So a section makes such a tuple before it begins, and drops
   it as the last thing before it ends: the interpreter keeps it for the next tuple of three.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import NoReturn, Protocol

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.with_lock import for_with
from latchstore.delivery.waiting import YIELDS, clock

#: Seconds of a sleep between two looks at a lock, first and longest.
_FIRST_SLEEP = 0.000_05
_LONGEST_SLEEP = 0.001


class Lockable(Protocol):
    """A handle of a reader/writer lock (``readerwriterlock.rwlock.Lockable``)."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take this side; return whether that was possible within `timeout` seconds."""
        ...

    def release(self) -> None:
        """Give this side back."""
        ...

    def locked(self) -> bool:
        """Return whether the handle has this side."""
        ...


class AnyReadWriteLock(Protocol):
    """A lock with many readers or one writer (``readerwriterlock.rwlock.RWLockable``)."""

    def gen_rlock(self) -> Lockable: ...

    def gen_wlock(self) -> Lockable: ...


def let_others_run(busy: Callable[[], object], timeout: float) -> bool:
    """Wait while `busy` returns something true; return whether it stopped in time.

    Parameters
    ----------
    busy : callable
    timeout : float
        Seconds; negative waits for ever.
    """
    for _ in range(YIELDS):
        if not busy():
            return True
        time.sleep(0)
    begun, seconds = clock(), _FIRST_SLEEP
    while busy():
        if 0 <= timeout <= clock() - begun or sys.is_finalizing():
            return False
        time.sleep(seconds)
        seconds = min(2 * seconds, _LONGEST_SLEEP)
    return True


class ReadWriteLock:
    """A reader/writer lock over a lock and a dict written in C; the default of a store.

    It has the protocol of ``readerwriterlock``, whose library it does not need. The handles are for other
    users of the protocol: their methods are Python, so an exception from outside may leave such a handle
    taken. A store takes the lock by way of `TableLock`, which no exception leaves taken.

    Attributes
    ----------
    mutex : lock
        Of the writer.
    holder : int
        The identifier of the writer's thread, 0 if there is none.
    readers : dict
        An object of each reader's own, with the identifier of its thread.
    """

    __slots__ = ("holder", "mutex", "readers")

    def __init__(self) -> None:
        self.readers: dict[object, int] = {}
        self.holder: int = 0
        # Guards whatever the lock is for, together with `readers`: rule 1. Held while one commit is made.
        # Made last: the harness, which replaces such locks, finds the readers.
        self.mutex: threading.Lock = for_with(threading.Lock())

    def gen_rlock(self) -> ReadHandle:
        """Return a new handle for one reader."""
        return ReadHandle(self)

    def gen_wlock(self) -> WriteHandle:
        """Return a new handle for one writer."""
        return WriteHandle(self)


class _Handle:
    """One side of a `ReadWriteLock`, for one thread at a time."""

    __slots__ = ("_lock",)

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take this side; return whether that was possible within `timeout` seconds."""
        return self._take() or (blocking and let_others_run(lambda: not self._take(), timeout))

    def _take(self) -> bool:
        raise NotImplementedError

    def release(self) -> None:
        """Give this side back; nothing happens if the handle does not have it."""
        raise NotImplementedError

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class ReadHandle(_Handle):
    """The read side."""

    __slots__ = ()

    def _take(self) -> bool:
        lock = self._lock
        lock.readers[self] = get_ident()  # before the look: rule 1
        if not lock.holder:
            return True
        lock.readers.pop(self, None)
        return False

    def release(self) -> None:
        self._lock.readers.pop(self, None)

    def locked(self) -> bool:
        """Return whether the handle has the read side."""
        return self in self._lock.readers


class WriteHandle(_Handle):
    """The write side."""

    __slots__ = ("_held",)

    def __init__(self, lock: ReadWriteLock) -> None:
        super().__init__(lock)
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take this side; return whether that was possible within `timeout` seconds."""
        if not super().acquire(blocking, timeout):
            return False
        self._held = True
        readers = self._lock.readers
        if not readers or (blocking and let_others_run(lambda: readers, timeout)):
            return True
        self.release()
        return False

    def _take(self) -> bool:
        if not self._lock.mutex.acquire(False):
            return False
        self._lock.holder = get_ident()
        return True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._lock.holder = 0
            self._lock.mutex.release()

    def locked(self) -> bool:
        """Return whether the handle has the write side."""
        return self._held


class TableLock:
    """The lock of one table, as the engine takes it.

    A section of the writer reads so, with ``lock`` a `TableLock`, ``own`` its `own`, and ``ident`` the
    thread's
    identifier::

        if own.holder:
            lock.wait_for_writer(purpose)
        spare = (ident, purpose, None)
        with own.mutex:
            own.holder = ident
            try:
                if own.readers:
                    lock.wait_for_readers(purpose)
                ...
            finally:
                if lock.foreign is not None:
                    lock.give_back_foreign()
                own.holder = 0
                del spare

    Parameters
    ----------
    lock : AnyReadWriteLock
        A `ReadWriteLock`, or a lock of ``readerwriterlock``, or another one with the same two methods. Of
        such a foreign one the write side is taken inside the mutex of one of our own.
    timeout : float
        Seconds that any acquisition may take.

    Attributes
    ----------
    own : ReadWriteLock
    foreign : Lockable or None
        The write handle of a foreign lock.
    busy_with : callable
        Returns what the writer is doing, for error messages; set by the table.
    """

    __slots__ = ("_lock", "busy_with", "foreign", "own", "timeout")

    def __init__(self, lock: AnyReadWriteLock, timeout: float) -> None:
        if not (callable(getattr(lock, "gen_rlock", None)) and callable(getattr(lock, "gen_wlock", None))):
            raise TypeError(f"lock_class must make locks with gen_rlock() and gen_wlock(), got {lock!r}")
        self.timeout: float = timeout
        self.busy_with: Callable[[], str] = str
        self._lock = lock
        self.own: ReadWriteLock
        self.foreign: Lockable | None = None
        if isinstance(lock, ReadWriteLock):
            self.own = lock
        else:
            self.own = ReadWriteLock()
            self.foreign = lock.gen_wlock()
            # As if there were always a reader: so each writer calls `wait_for_readers`, which takes the write
            # side of the foreign lock.
            self.own.readers[object()] = 0

    def wait_for_writer(self, purpose: str, timeout: float | None = None) -> None:
        """Wait until no thread is in a section of the writer, `timeout` seconds if that is not None.

        Raises
        ------
        LockTimeoutError
            At once if it is this thread that is in one, or if this thread is in the middle of a read of
            several keys, which the writer waits for; or if the writer takes too long.
        """
        self.refuse_own_section(purpose)
        self.refuse_own_read(purpose)
        seconds = self.timeout if timeout is None else timeout
        if not let_others_run(self._has_holder, seconds):
            self.give_up(purpose, seconds)

    def _has_holder(self) -> int:
        return self.own.holder

    def refuse_own_section(self, purpose: str) -> None:
        """Raise LockTimeoutError if this thread is in a section of the writer: it would wait for itself."""
        if self.own.holder == get_ident():
            raise LockTimeoutError(
                f"{purpose}: this thread is in the middle of {self.busy_with()} and would wait for itself; "
                "a signal handler or finalizer that meets this may try again later"
            )

    def refuse_own_read(self, purpose: str) -> None:
        """Raise LockTimeoutError if this thread is reading several keys: a writer would wait for itself."""
        if self.reads():
            raise LockTimeoutError(
                f"{purpose}: this thread is in the middle of a read of several keys and would wait for "
                "itself; a signal handler or finalizer that meets this may try again later"
            )

    def wait_for_readers(self, purpose: str) -> None:
        """Wait until the readers have left, and keep new ones out; called by the writer in its section.

        Raises
        ------
        LockTimeoutError
            At once if this thread is one of the readers; or if they take too long.
        """
        self.refuse_own_read(purpose)
        if self.foreign is not None:
            if not self.foreign.acquire(timeout=self.timeout):
                self.give_up(purpose)
            return
        readers = self.own.readers
        if not let_others_run(lambda: readers, self.timeout):
            self.give_up(purpose)

    def give_back_foreign(self) -> None:
        """Give the write side of the foreign lock back, if it was taken."""
        if self.foreign is not None and self.foreign.locked():
            self.foreign.release()

    def read_handle(self) -> Lockable:
        """Return a new handle of the read side of a foreign lock."""
        return self._lock.gen_rlock()

    def reads(self) -> bool:
        """Return whether this thread is reading several keys now."""
        return get_ident() in list(self.own.readers.values())

    def is_used(self) -> bool:
        """Return whether a thread is in a section now, be it of the writer or of a reader."""
        return bool(self.own.holder or any(list(self.own.readers.values())))

    def give_up(self, purpose: str, seconds: float | None = None) -> NoReturn:
        """Raise LockTimeoutError, naming whoever has the lock."""
        waited = self.timeout if seconds is None else seconds
        raise LockTimeoutError(f"{purpose}: the table was not free in {waited:g} s, {self.describe()}")

    def describe(self) -> str:
        """Name whoever has the lock."""
        holder = self.own.holder
        if holder and holder != get_ident():  # else it is this thread that waits for readers
            return f"held by thread {_name_of(holder)} ({self.busy_with()})"
        readers = {ident for ident in list(self.own.readers.values()) if ident}
        if readers:
            return f"read by thread {', '.join(map(_name_of, readers))}"
        return "which is free now" if self.foreign is None else f"held by others that have {self._lock!r}"


def _name_of(ident: int) -> str:
    names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
    return repr(names[0] if names else ident)
