"""The connections of one process to a database file, and their handling in a forked child.

1. `idle` has the unused connections, and is changed by single operations of the list. A thread that takes one
   has it alone, reads all rows of each statement (an unfinished statement keeps an old instant), and gives it
   back by one call in C. If an exception prevents that, the garbage collector closes the connection, as it is
   part of a reference cycle (through its statement cache). So a thread that has begun a transaction must roll
   it back, by one call in C as well.
2. A connection with an open read transaction is `Pinned`. It runs one statement at a time, under its lock.
3. SQLite must not see a connection that was carried over a fork. Its locks are POSIX locks, which a child
   does not inherit; but SQLite's record of them is in memory, and a new connection of the child would trust
   it: then a checkpoint of the parent overwrites pages that the child reads, and the last connection that
   closes in the parent deletes the child's log. So a fork closes idle connections first, and holds pinned
   ones between two statements; the child closes these before it opens its own. That unlocks nothing, as the
   child has no locks, and the kernel refuses it the lock for a last checkpoint.
4. For that, a fork waits until no connection is in use, and a thread that finds none idle meanwhile waits for
   the fork. It continues after a while, as a thread with a connection may wait for it. The last check before
   a fork stays valid: a thread that opens or closes a connection joins `_busy` before it checks for a fork.
5. If the fork has waited in vain, or its thread is in the middle of a call, the child refuses the file.

Thread safety: as above. The only locks are those of pinned connections; a fork acquires them without waiting.
"""

from __future__ import annotations

import atexit
import gc
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import compress
from threading import get_ident
from types import FrameType
from typing import Any, TypeVar

from latchstore.contract.errors import LockTimeoutError, SnapshotClosedError, StoreError
from latchstore.contract.with_lock import for_with
from latchstore.delivery.waiting import Waiters, clock

T = TypeVar("T")

#: Seconds that a fork waits for calls in progress, and between two checks.
FORK_TIMEOUT = 5.0
_PAUSE = 0.000_5

#: Seconds after which a fork checks whether a connection that it waits for was lost.
_LOST_AFTER = 0.1
#: Seconds after which a thread that needs a connection stops waiting for a fork that waits for others.
_GRACE = 0.05

#: The stages of a fork.
_COLLECTS, _FORKS = "collects", "forks"


class _Opening(sqlite3.Connection):
    """A connection that is being opened; one that cannot be has nothing to close."""


class Connection(_Opening):
    """A connection that the garbage collector closes."""

    __del__ = sqlite3.Connection.close  # written in C, so that no exception can interrupt it


class Pinned:
    """A connection of one user, until it is closed.

    Parameters
    ----------
    connections : Connections

    Attributes
    ----------
    lock : RLock
        Held for one statement. Reentrant, for finalizers and signal handlers in the middle of a statement of
        their own thread: SQLite runs a second statement beside it.
    """

    _closed = _forked = False
    # The connection; empty before it is taken and after it is given back.
    _held: Sequence[Connection] = ()

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.lock: Any = for_with(threading.RLock())
        connections.add_pinned(self)
        self._held = [connections.take()]

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return not self._closed

    @property
    def is_of_parent(self) -> bool:
        """Whether it was opened in the parent of this forked process."""
        return self._forked

    def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection, while no other thread uses it; SnapshotClosedError."""
        try:
            with self.lock:
                if self._closed or not self._held:
                    raise SnapshotClosedError(
                        "the snapshot was taken in the parent of this forked process"
                        if self._forked
                        else "the snapshot is closed"
                    )
                return function(self._held[0])
        finally:
            if self._closed:
                self._give_back()

    def close(self) -> None:
        """Roll back, and give the connection back. Never waits; a reader in progress does it then."""
        self._closed = True
        self._give_back()

    def _give_back(self) -> None:
        try:
            if self.lock.acquire(blocking=False) and self._held:
                self._held[0].rollback()
                (connection,), self._held = self._held, ()
                self._connections.give(connection)
        except sqlite3.ProgrammingError:
            self._held = ()  # both were in a cycle, and the collector has closed the connection first
        finally:
            try:  # noqa: SIM105 (as in TryLatch.attempt)
                self.lock.release()
            except RuntimeError:
                pass

    def __del__(self) -> None:
        if self._held:
            self.close()

    @property
    def connection(self) -> Connection | None:
        """The connection, for forks; None if it has been given back."""
        return self._held[0] if self._held else None

    def end_in_child(self) -> Sequence[Connection]:
        """Mark it as closed, in a forked child; return the connection."""
        self._closed = self._forked = True
        self.lock = for_with(threading.RLock())
        held, self._held = self._held, ()
        return held


class Connections:
    """Opens connections, and keeps the unused ones.

    Parameters
    ----------
    path : str
        Absolute path of the file.
    synchronous : str
        Value of SQLite's pragma ``synchronous``.
    timeout : float
        Maximum seconds to wait for a lock of another program, and for a fork.

    Attributes
    ----------
    idle : list of sqlite3.Connection
    give : callable
        Returns a connection without an open transaction to the pool; one call in C.
    """

    def __init__(self, path: str, synchronous: str, timeout: float) -> None:
        self.path: str = path
        self._synchronous = synchronous
        self._timeout = timeout
        self.idle: list[Connection] = []
        self._renew()
        self.reopen()
        _all.add(self)

    def _renew(self) -> None:
        """Reset to no connections and no forks."""
        self._pid = os.getpid()
        # All connections, and all pinned ones.
        self._live: set[weakref.ref[Connection]] = set()
        self._pins: set[weakref.ref[Pinned]] = set()
        # Idle connections while a fork waits: rule 4.
        self._aside: list[Connection] = []
        # Threads that open or close a connection, and the stages of threads that fork: rule 4.
        self._busy: dict[object, int] = {}
        self._forks: dict[int, str] = {}
        # Pinned connections whose locks a forking thread holds.
        self._locked: dict[int, list[Pinned]] = {}
        self._waiters = Waiters()

    # -- taking and giving ------------------------------------------------------------------------

    def take(self) -> Connection:
        """Return a connection that no other thread uses.

        Raises
        ------
        LockTimeoutError
            If the process is being forked, and that takes too long or is done by this thread.
        StoreError
            If the process was forked while a connection was in use.
        """
        waited = False
        while True:
            with suppress(IndexError):
                return self.idle.pop()
            connection = self._other(waited)
            if connection is not None:
                return connection
            waited = self._wait_for_fork()

    def _other(self, waited: bool) -> Connection | None:
        """Return a connection that is not idle, or None if there is a fork to wait for."""
        token = object()
        connection = None
        self._busy[token] = get_ident()  # before the check: rule 4
        try:
            forks = self._forks
            if forks and not (waited and _FORKS not in forks.values()):
                return None
            with suppress(IndexError):
                return self._aside.pop()
            connection = self._connect()
            self._live.add(weakref.ref(connection, self._live.discard))
            return connection
        except BaseException:
            if connection is not None:
                connection.close()  # in C, not by its last reference: the error's traceback has one
            raise
        finally:
            self._busy.pop(token, None)

    def _connect(self) -> Connection:
        if _refused:
            _refuse(self.path)
        connection: Connection = sqlite3.connect(  # type: ignore[assignment]
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, factory=_Opening
        )
        connection.__class__ = Connection
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection

    def _wait_for_fork(self) -> bool:
        """Wait until the fork is done, or for the grace period of rule 4."""
        if self._pid != os.getpid():
            self.renew_in_child()  # other fork handlers are called before this one
            return False
        if get_ident() in self._forks:
            raise LockTimeoutError("this thread is about to fork, and would wait for itself")
        begun = clock()
        while self._forks:
            collects = _FORKS not in self._forks.values()
            if collects and clock() - begun >= _GRACE:
                return True
            if clock() - begun >= self._timeout:
                raise LockTimeoutError(f"the process has been forking for more than {self._timeout:g} s")
            self._waiters.wait(lambda: not self._forks, _PAUSE if collects else _GRACE, yields=1)
        return False

    def reopen(self) -> None:
        """Keep connections again."""
        self._closed = False
        self._set_give()

    def close(self) -> None:
        """Close unused connections, and those that are given back from now on."""
        self._closed = True
        self._set_give()
        self.close_idle()

    def _set_give(self) -> None:
        """Choose where connections are given back to; not to the idle ones while a fork waits for them."""
        self.give: Callable[[Connection], None]
        if self._forks:
            self.give = self._aside.append
        else:
            self.give = self._close_given if self._closed else self.idle.append

    def close_idle(self) -> None:
        """Close unused connections."""
        with suppress(IndexError):
            while True:
                self._close_given(self.idle.pop())

    def _close_given(self, connection: Connection) -> None:
        token = object()
        self._busy[token] = get_ident()
        try:
            connection.close()
        finally:
            self._busy.pop(token, None)

    def add_pinned(self, pinned: Pinned) -> None:
        """Register a pinned connection for forks."""
        self._pins.add(weakref.ref(pinned, self._pins.discard))

    # -- forks ------------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Wait until no connection is in use, and keep it so; close idle ones."""
        ident = get_ident()
        if ident in self._forks:
            return  # a finalizer that forks in the middle of this call
        self._forks[ident] = _COLLECTS
        self._set_give()
        to_look_for_lost = clock() + _LOST_AFTER
        while not self._collect(ident):
            now = clock()
            if now >= deadline or ident in self._busy.values() or _is_in_call():
                break
            if now >= to_look_for_lost:
                to_look_for_lost = deadline
                self._close_lost(ident)
            time.sleep(_PAUSE)
        self._forks[ident] = _FORKS

    def _close_lost(self, ident: int) -> None:
        """Collect garbage, which closes connections without references: rule 1."""
        self._forks.pop(ident, None)  # finalizers of other objects run, and may need a connection
        gc.collect()
        self._forks[ident] = _COLLECTS

    def _collect(self, ident: int) -> bool:
        """Check whether no connection is in use; if so, close the idle ones."""
        self._forks[ident] = _FORKS  # before the check: rule 4
        aside = self._aside
        with suppress(IndexError):
            while True:
                aside.append(self.idle.pop())
        if self._is_quiet(aside) and self._lock_pinned(ident):
            _close_all(aside)
            return True
        self._unlock_pinned(ident)
        self._forks[ident] = _COLLECTS
        return False

    def _is_quiet(self, idle: list[Connection]) -> bool:
        """Return whether only these and pinned connections exist."""
        known = {id(connection) for connection in idle}
        known.update(id(pinned.connection) for pinned in _present(self._pins))
        return not self._busy and all(
            id(connection) in known or _is_closed(connection) for connection in _present(self._live)
        )

    def _lock_pinned(self, ident: int) -> bool:
        """Acquire the locks of all pinned connections, or none if one is in use."""
        locked = self._locked.setdefault(ident, [])
        for pinned in _present(self._pins):
            before = len(locked)
            # Acquired and recorded by one call in C.
            locked.extend(compress((pinned,), map(pinned.lock.acquire, (False,))))
            if len(locked) == before:
                return False
        return not _is_in_call()

    def _unlock_pinned(self, ident: int) -> None:
        locked = self._locked.get(ident, [])
        while locked:
            with suppress(RuntimeError):  # an exception has interrupted it after that
                locked[-1].lock.release()
            locked.pop()

    def after_in_parent(self) -> None:
        """Let all threads continue."""
        ident = get_ident()
        self._unlock_pinned(ident)
        self._locked.pop(ident, None)
        self._forks.pop(ident, None)
        self._set_give()
        with suppress(IndexError):
            self._give_back_aside()
        self._waiters.ring_all()

    def _give_back_aside(self) -> None:
        while not self._forks:  # otherwise another fork has begun
            self.give(self._aside.pop())

    def renew_in_child(self) -> None:
        """Close the parent's connections, in a forked child; does nothing if that is done."""
        if self._pid == os.getpid():
            return
        pins = list(_present(self._pins))
        locked = {id(pinned) for pinned in self._locked.get(get_ident(), ())}
        idle = [*self.idle, *self._aside]
        if all(id(pinned) in locked for pinned in pins) and self._is_quiet(idle) and not _is_in_call():
            give = None
            for pinned in pins:
                idle += pinned.end_in_child()
            _close_all(idle)
        else:
            # Not closed: SQLite may be in the middle of any operation.
            give = _inherited.append
            _inherited.extend(_present(self._live))
            for pinned in pins:
                pinned.end_in_child()
            _refused.add(_identity(self.path))
        self.idle.clear()
        self._renew()
        self._set_give()
        if give is not None:
            self.give = give


def _present(references: Iterable[weakref.ref[T]]) -> Iterator[T]:
    for reference in list(references):
        found = reference()
        if found is not None:
            yield found


def _is_closed(connection: Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018 (raises if it is closed)
    except sqlite3.ProgrammingError:
        return True
    return False


def _close_all(connections: list[Connection]) -> None:
    with suppress(IndexError):
        while True:
            connection = connections.pop()
            with suppress(sqlite3.Error):  # the log is written to the file when that is opened again
                connection.close()


def _is_in_call() -> bool:
    """Return whether this thread forks in the middle of a call that uses a connection."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # By the identities of types, as comparing objects may run the user's code.
        if id(Connection) in map(id, map(type, frame.f_locals.values())):
            return True
        frame = frame.f_back
    return False


# -- the whole process -------------------------------------------------------------------------------

_all: weakref.WeakSet[Connections] = weakref.WeakSet()

#: Connections that a child must leave alone, and files (device and inode) that it must not open.
_inherited: list[Connection] = []
_refused: set[tuple[int, int]] = set()


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _refuse(path: str) -> None:
    """Raise StoreError if SQLite has connections to a file that were carried over a fork."""
    with suppress(FileNotFoundError):
        if _identity(path) in _refused:
            raise StoreError(
                f"{path!r} cannot be used in this forked process: at the fork, a call that used the file "
                "was in progress, in the thread that forked or, for seconds, in another; fork when there "
                "is none"
            )


def _before_fork() -> None:
    deadline = clock() + FORK_TIMEOUT
    for connections in list(_all):
        connections.before_fork(deadline)


def _after_fork_in_parent() -> None:
    for connections in list(_all):
        connections.after_in_parent()


def _after_fork_in_child() -> None:
    for connections in list(_all):
        connections.renew_in_child()


def _close_at_exit() -> None:
    """Make SQLite write its log into the file and remove it, if this process is the last one that uses it."""
    for connections in list(_all):
        with suppress(sqlite3.Error):
            connections.close_idle()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
atexit.register(_close_at_exit)
