"""The two latches of a store, and the one order in which they are taken.

====== =================== ============================================ ==============================
order  lock                what it guards                               held for
====== =================== ============================================ ==============================
1      writer mutex        who may commit next: one writer at a time    a whole exclusive transaction
                                                                        (user code runs), or one write
2      table lock          the dicts: written while changes are         microseconds; no user code, no
                           applied, read while several keys are read    waiting for anything
3      gate lock           what the gate of memory.py says              microseconds
4      feed lock           history and list of watches (change_feed.py) microseconds
5      buffer locks        the changes that a watch has not read        microseconds
6      dispatcher's locks  starting and ending its thread; the room in  microseconds
                           its queue
====== =================== ============================================ ==============================

A lock is only ever asked for while holding locks above it in this table. Reads, and
opening a snapshot, take the table lock alone. The feed lock alone is taken inside the table lock.

Thread safety:

1. Neither latch is reentrant. Internal methods never call public ones, which is what keeps a thread
   from asking twice. Whoever does so all the same (a finalizer that the garbage collector runs in the
   middle of a commit, say) is told at once, and does not wait for itself.
2. Each read acquisition has a fresh handle. The one write handle is used by whoever holds the writer
   mutex, so by one thread at a time.
3. Every wait ends: with the lock, or with an error that names the holder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from readerwriterlock import rwlock

from latchstore.errors import LockTimeoutError

#: How often a writer lets others run before it waits for the one who holds the mutex.
_YIELDS = 32


class Lockable(Protocol):
    """What a handle of a reader/writer lock must do (``readerwriterlock.rwlock.Lockable``)."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


class ReaderWriterLock(Protocol):
    """A lock with many readers or one writer (``readerwriterlock.rwlock.RWLockable``)."""

    def gen_rlock(self) -> Lockable: ...

    def gen_wlock(self) -> Lockable: ...


class _QuickWriter(rwlock.RWLockFair._aWriter):
    """A write handle that tries both of its locks at once before it computes deadlines.

    ``readerwriterlock`` works out the time that is left before each of its two locks, which costs two
    thirds of an acquisition that nobody contends: 1.6 us against 0.6 us (``benchmarks/locks.py``). The
    order of the two locks is the library's own, so fairness is too.
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        lock = self.c_rw_lock
        if lock.c_lock_read.acquire(False):
            if lock.c_lock_write.acquire(False):
                self.v_locked = True
                return True
            lock.c_lock_read.release()
        return super().acquire(blocking, timeout)


class FairLock(rwlock.RWLockFair):
    """``readerwriterlock``'s fair lock, whose writers first try without a deadline."""

    def gen_wlock(self) -> rwlock.RWLockFair._aWriter:
        return _QuickWriter(self)


class _ThisThread(threading.local):
    """The calling thread, found faster than by ``threading.current_thread()``.

    Threads are told apart by these objects, as the identifier of an ended thread is given to a new one.
    """

    def __init__(self) -> None:
        self.thread = threading.current_thread()


this_thread = _ThisThread()


def thread_name(thread: threading.Thread) -> str:
    """Return the name of a thread, for error messages."""
    return thread.name if thread.is_alive() else f"{thread.name} (ended)"


class WriterMutex:
    """One writer at a time, and a note of who it is.

    Held for a whole exclusive transaction, user code included; so reads never take it.
    """

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        # Guards the right to change the table. While it is held: user code of one transaction block,
        # the table lock, the dispatcher's lock. See the table at the top of this file.
        self._lock = threading.Lock()
        # (thread, what for, since when in seconds since the epoch), published by one assignment; for
        # error messages and for telling that a thread waits for itself, never for exclusion.
        self._holder: tuple[threading.Thread, str, float] | None = None

    def acquire(self, timeout: float, purpose: str) -> float:
        """Take the mutex, or raise LockTimeoutError after `timeout` seconds.

        Parameters
        ----------
        timeout : float
            Seconds; negative waits for ever.
        purpose : str
            What the holder is about, for the error message of those who wait.

        Returns
        -------
        now : float
            When it was taken, in seconds since the epoch; the write that follows is stamped with it.
        """
        thread = this_thread.thread
        if not self._lock.acquire(False):
            holder = self._holder
            if holder is not None and holder[0] is thread:
                raise LockTimeoutError(
                    f"{purpose}: this thread is already writing ({holder[1]}) and would wait for itself"
                )
            if not (self._acquire_soon(timeout) or self._lock.acquire(True, timeout)):
                raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s, {self.describe()}")
        now = time.time()
        self._holder = (thread, purpose, now)
        return now

    def _acquire_soon(self, timeout: float) -> bool:
        """Let other threads run a few times, and take the mutex if it has come free.

        A thread that waits for a lock of the system gets it when it is released, and only then waits for
        the interpreter, up to 5 ms, while all that need the lock wait, too: a convoy (Blasgen, Gray,
        Mitoma and Price, "The convoy phenomenon", ACM SIGOPS Operating Systems Review 13(2), 1979). A thread
        that asks when it has the interpreter holds nobody up. With 8 threads and 90 % reads that is three
        times the throughput (benchmarks/threads.py).
        """
        if timeout == 0:
            return False
        for _ in range(_YIELDS):
            time.sleep(0)
            if self._lock.acquire(False):
                return True
        return False

    def release(self) -> None:
        """Give the mutex back."""
        self._holder = None
        self._lock.release()

    def held_by_this_thread(self) -> bool:
        """Tell whether the calling thread holds the mutex; for assertions."""
        holder = self._holder
        return holder is not None and holder[0] is this_thread.thread

    def describe(self) -> str:
        """Say who holds the mutex: thread, purpose and for how long."""
        holder = self._holder
        if holder is None:
            return "which is free now"
        thread, purpose, since = holder
        held = max(0.0, time.time() - since)
        return f"held for {held:.3f} s by thread {thread_name(thread)!r} ({purpose})"


class _ReadSection:
    """One read acquisition of a table lock, for a ``with`` statement; used once."""

    __slots__ = ("_handle", "_table_lock")

    def __init__(self, table_lock: TableLock, handle: Lockable) -> None:
        self._table_lock = table_lock
        self._handle = handle

    def __enter__(self) -> None:
        table_lock = self._table_lock
        if table_lock.held_for_writing_by_this_thread():
            raise LockTimeoutError("this thread is applying a commit and would wait for itself")
        if not self._handle.acquire(timeout=table_lock.timeout):
            raise LockTimeoutError(f"no read lock in {table_lock.timeout:g} s, {table_lock.describe()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.release()


class TableLock:
    """Many readers or one writer of the dicts; held for microseconds, never while user code runs.

    Parameters
    ----------
    lock : ReaderWriterLock
        Any lock of ``readerwriterlock``, or one with the same two methods.
    timeout : float
        Seconds to wait before LockTimeoutError.
    writer : WriterMutex
        Held by whoever takes the write side, and knows the name.
    """

    __slots__ = ("_lock", "_write_handle", "_writer", "_writing", "timeout")

    def __init__(self, lock: ReaderWriterLock, timeout: float, writer: WriterMutex) -> None:
        self._lock = lock
        self._writer = writer
        # Whether the write side is held; by whom, the writer mutex knows. For assertions and messages.
        self._writing = False
        # Used under the writer mutex only, so by one thread at a time.
        self._write_handle = lock.gen_wlock()
        self.timeout = timeout

    def read(self) -> _ReadSection:
        """Return a ``with`` context that holds the read side."""
        return _ReadSection(self, self._lock.gen_rlock())

    def acquire_write(self) -> None:
        """Take the write side; the caller holds the writer mutex. Raises LockTimeoutError."""
        if not self._write_handle.acquire(timeout=self.timeout):
            raise LockTimeoutError(
                f"the table was not free for writing in {self.timeout:g} s: readers hold it"
            )
        self._writing = True

    def release_write(self) -> None:
        """Give the write side back."""
        self._writing = False
        self._write_handle.release()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the write side without the writer mutex: keeps commits out while a snapshot is opened."""
        if self.held_for_writing_by_this_thread():
            raise LockTimeoutError("this thread is applying a commit and would wait for itself")
        handle = self._lock.gen_wlock()
        if not handle.acquire(timeout=self.timeout):
            raise LockTimeoutError(f"the table was not free in {self.timeout:g} s, {self.describe()}")
        try:
            yield
        finally:
            handle.release()

    def try_exclusive(self) -> Lockable | None:
        """Take the write side if it is free this instant; return what releases it, or None."""
        handle = self._lock.gen_wlock()
        return handle if handle.acquire(blocking=False) else None

    def held_for_writing_by_this_thread(self) -> bool:
        """Tell whether the calling thread holds the write side."""
        return self._writing and self._writer.held_by_this_thread()

    def describe(self) -> str:
        """Say who holds the write side."""
        return self._writer.describe() if self._writing else "no thread is writing now"


class Latches:
    """The two latches of one store, in the order of the table above.

    Parameters
    ----------
    lock_class : callable
        Makes the reader/writer lock: `FairLock`, a class of ``readerwriterlock``, or another factory
        of objects with ``gen_rlock`` and ``gen_wlock``.
    timeout : float
        Seconds that any acquisition may take.
    """

    __slots__ = ("table", "timeout", "writer")

    def __init__(self, lock_class: Callable[[], ReaderWriterLock], timeout: float) -> None:
        self.writer = WriterMutex()
        self.table = TableLock(lock_class(), timeout, self.writer)
        self.timeout = timeout

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the writer mutex for a ``with`` block."""
        self.writer.acquire(self.timeout, purpose)
        try:
            yield
        finally:
            self.writer.release()
