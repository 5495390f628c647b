"""The table lock: many readers of several keys, or one committing writer.

====== ================ ==================================================== ======================
order  lock             what it guards                                       held for
====== ================ ==================================================== ======================
1      table lock       entries, indexes, journal, owner, pre-images, the    microseconds; no user
                        books of bounds, and the change feed (``table.py``)  code, no waiting
2      buffer lock      the changes that one watch has not read              microseconds
       (change_buffer)
3      latches          starting the dispatcher's thread; the counts of a    microseconds
                        cache's threads (``delivery/waiting.py``)
====== ================ ==================================================== ======================

These are the locks of the engine in memory; ``sqlite/engine.py`` has those of a store in a file. A thread
acquires a lock only while it holds locks above it in this table. The right to commit that an exclusive
transaction has for its whole block, user code included, is not a lock: it is an item of a dict,
set without the table lock and removed under it (``owner.py``).

Thread safety:

1. A writer acquires the mutex, which is written in C, by ``with``, then sets `holder` to its thread's
   identifier, then waits for the `readers` that it finds. A reader first registers in `readers`, and then
   checks whether there is a holder; if so it unregisters and waits. So of a reader and a writer that come at
   the same time at least one finds the other.
2. `holder` is set right after the mutex is acquired and cleared right before it is released; CPython runs no
   signal handler and no finalizer in between, as it does when calls return, when functions are entered and at
   backward jumps (for 3.14, whose ``with`` begins with a call, see ``contract/with_lock.py``). So a signal
   handler or finalizer in the middle of a section of its own thread detects that, and raises instead of
   waiting for itself. Readers are detected in the same way: each has its thread's identifier.
3. A reader is unregistered by the first operation of a ``finally``, one call in C.
4. No thread sleeps in the mutex while it is held for long: a thread that finds a holder yields, then sleeps
   for moments, and acquires the mutex when it is free. A thread that is woken while it holds the mutex has to
   wait for the interpreter, and with it all that need the mutex: a convoy (Blasgen, Gray, Mitoma and Price,
   ACM SIGOPS Operating Systems Review 13(2), 1979).
5. Every wait ends: with the lock, or with an error that names the holder.
6. The end of a ``with`` calls ``__exit__`` with a tuple of three, and if there is no memory for that the
   mutex stays acquired (measured on 3.11 to 3.13). So a section creates such a tuple before it begins, and
   drops it right before it ends: the interpreter keeps it for the next tuple of three.
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

#: Seconds of the first and of the longest sleep between two checks of a lock.
_FIRST_SLEEP = 0.000_05
_LONGEST_SLEEP = 0.001


class Lockable(Protocol):
    """A handle of a reader/writer lock (``readerwriterlock.rwlock.Lockable``)."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire this side; return whether that succeeded within `timeout` seconds."""
        ...

    def release(self) -> None:
        """Release this side."""
        ...

    def locked(self) -> bool:
        """Return whether the handle holds this side."""
        ...


class AnyReadWriteLock(Protocol):
    """A lock with many readers or one writer (``readerwriterlock.rwlock.RWLockable``)."""

    def gen_rlock(self) -> Lockable: ...

    def gen_wlock(self) -> Lockable: ...


def let_others_run(busy: Callable[[], object], timeout: float) -> bool:
    """Wait while `busy` returns a true value; return whether it stopped in time.

    Parameters
    ----------
    busy : callable
    timeout : float
        Seconds; negative waits forever.
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

    It has the protocol of ``readerwriterlock``, but does not need that library. The handles are for other
    users of the protocol: their methods are written in Python, so an exception from outside may leave such a
    handle acquired. A store acquires the lock through `TableLock`, which no exception leaves acquired.

    Attributes
    ----------
    mutex : lock
        Held by the writer.
    holder : int
        The identifier of the writer's thread; 0 if there is none.
    readers : dict
        The identifier of each reader's thread, by an object of the reader.
    """

    __slots__ = ("holder", "mutex", "readers")

    def __init__(self) -> None:
        self.readers: dict[object, int] = {}
        self.holder: int = 0
        # Guards the data that the lock is for, together with `readers`: rule 1. Held while one commit is
        # made. Created last: the harness, which replaces such locks, finds the readers.
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
        """Acquire this side; return whether that succeeded within `timeout` seconds."""
        return self._take() or (blocking and let_others_run(lambda: not self._take(), timeout))

    def _take(self) -> bool:
        raise NotImplementedError

    def release(self) -> None:
        """Release this side; do nothing if the handle does not hold it."""
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
        lock.readers[self] = get_ident()  # before the check: rule 1
        if not lock.holder:
            return True
        lock.readers.pop(self, None)
        return False

    def release(self) -> None:
        self._lock.readers.pop(self, None)

    def locked(self) -> bool:
        """Return whether the handle holds the read side."""
        return self in self._lock.readers


class WriteHandle(_Handle):
    """The write side."""

    __slots__ = ("_held",)

    def __init__(self, lock: ReadWriteLock) -> None:
        super().__init__(lock)
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire this side; return whether that succeeded within `timeout` seconds."""
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
        """Return whether the handle holds the write side."""
        return self._held


class TableLock:
    """The lock of one table, as the engine acquires it.

    A section of the writer is written like this, where ``lock`` is a `TableLock`, ``own`` its `own`, and
    ``ident`` the identifier of the thread::

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
        A `ReadWriteLock`, or a lock of ``readerwriterlock``, or another one with the same two methods. The
        write side of such a foreign lock is acquired inside the mutex of an own `ReadWriteLock`.
    timeout : float
        The most seconds to wait for any acquisition.

    Attributes
    ----------
    own : ReadWriteLock
    foreign : Lockable or None
        The write handle of a foreign lock.
    busy_with : callable
        Returns the purpose of the writer for error messages; set by the table.
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
            # As if there were always a reader: each writer then calls `wait_for_readers`, which acquires the
            # write side of the foreign lock.
            self.own.readers[object()] = 0

    def wait_for_writer(self, purpose: str, timeout: float | None = None) -> None:
        """Wait until no thread is in a section of the writer, at most `timeout` seconds.

        Raises
        ------
        LockTimeoutError
            At once if this thread is in such a section, or in the middle of a read of several keys, for which
            the writer waits; or if the writer takes too long.
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
        """Raise LockTimeoutError if this thread is reading several keys, since a writer would wait for it."""
        if self.reads():
            raise LockTimeoutError(
                f"{purpose}: this thread is in the middle of a read of several keys and would wait for "
                "itself; a signal handler or finalizer that meets this may try again later"
            )

    def wait_for_readers(self, purpose: str) -> None:
        """Wait until all readers have finished, and block new ones; called by the writer in its section.

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
        """Release the write side of the foreign lock, if it is held."""
        if self.foreign is not None and self.foreign.locked():
            self.foreign.release()

    def read_handle(self) -> Lockable:
        """Return a new handle of the read side of a foreign lock."""
        return self._lock.gen_rlock()

    def reads(self) -> bool:
        """Return whether this thread is reading several keys now."""
        return get_ident() in list(self.own.readers.values())

    def is_used(self) -> bool:
        """Return whether any thread is in a section, of the writer or of a reader."""
        return bool(self.own.holder or any(list(self.own.readers.values())))

    def give_up(self, purpose: str, seconds: float | None = None) -> NoReturn:
        """Raise LockTimeoutError, which names the holder of the lock."""
        waited = self.timeout if seconds is None else seconds
        raise LockTimeoutError(f"{purpose}: the table was not free in {waited:g} s, {self.describe()}")

    def describe(self) -> str:
        """Return a description of the holder of the lock."""
        holder = self.own.holder
        if holder and holder != get_ident():  # else this thread itself waits for readers
            return f"held by thread {_name_of(holder)} ({self.busy_with()})"
        readers = {ident for ident in list(self.own.readers.values()) if ident}
        if readers:
            return f"read by thread {', '.join(map(_name_of, readers))}"
        return "which is free now" if self.foreign is None else f"held by other users of {self._lock!r}"


def _name_of(ident: int) -> str:
    names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
    return repr(names[0] if names else ident)
