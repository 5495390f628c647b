"""Sections of the table lock, and the owner: the locking of the engine in memory.

Thread safety: rules 1, 2, 3 and 5 of ``table.py``, which has all of them.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import NamedTuple, TypeVar, TypeVarTuple

from latchstore.engine.interface import Engine
from latchstore.engine.locks import AnyReadWriteLock, TableLock
from latchstore.engine.owner import OWNER, Activity, Claim, Ownership, Route, purpose_of
from latchstore.engine.publishing import Publisher
from latchstore.engine.routes import Routes

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Latches(NamedTuple):
    """The locks of a table: for a commit, and for a whole exclusive transaction."""

    table: TableLock
    writer: Ownership


class _Block:
    """Referenced by the call of a method that blocks other writers."""

    __slots__ = ("__weakref__",)


class GuardedEngine(Engine):
    """An engine whose state is guarded by one table lock.

    A subclass has the state, and finishes interrupted commits (`finish`).

    Parameters
    ----------
    lock_class : callable
        Returns the reader/writer lock.
    timeout : float
        The most seconds of any wait.
    publisher : Publisher
        Notified of transactions.

    Attributes
    ----------
    journal : tuple or None
        The commit that is decided and not finished.
    detour : object or None
        Contains the identifier of each thread that must not use a single key that it has read without a lock.
    followed : bool
        Whether anything may follow the commits, such as an index. A follower is added in a section that
        makes no commit (`exclusively`), which sets it; a commit that finds no follower clears it. hot path:
        one check instead of one for each kind of follower.
    garbage : deque
        Objects dropped in a section; freed after it.
    """

    __slots__ = (
        "_has_listeners",
        "_is_closed",
        "_lock",
        "_lock_class",
        "_preparing",
        "_publisher",
        "abandon",
        "abandoned",
        "detour",
        "followed",
        "garbage",
        "journal",
        "owner",
        "revision",
        "routes",
        "timeout",
    )

    journal: object
    detour: object

    def __init__(
        self, lock_class: Callable[[], AnyReadWriteLock], timeout: float, publisher: Publisher
    ) -> None:
        self._lock_class = lock_class
        self.timeout: float = timeout
        self._publisher = publisher
        # hot path: called by each commit.
        self._has_listeners = publisher.has_listeners
        self._is_closed = False
        self.revision: int = 0
        self.routes: Routes = Routes()
        self.detour = None
        self.journal = None
        self.followed: bool = True
        self.garbage: deque[object] = publisher.garbage
        # The operation of the writer in a section, for error messages.
        self._preparing: str | Claim | None = None
        self._renew_locks()

    def _renew_locks(self) -> None:
        # Guards all attributes above: see the table in locks.py.
        self._lock = TableLock(self._lock_class(), self.timeout)
        self._lock.busy_with = self._busy_with
        self.owner: Ownership = Ownership()
        self.abandoned: deque[Route] = self.owner.abandoned
        # hot path: made once, and not by each transaction.
        self.abandon = self.owner.abandoned.append

    def _busy_with(self) -> str:
        return "a commit" if self._preparing is None else purpose_of(self._preparing)

    @property
    def latches(self) -> Latches:
        """The current lock and owner."""
        return Latches(self._lock, self.owner)

    def activity(self) -> Activity:
        return self.owner.activity()

    @abstractmethod
    def finish(self) -> None:
        """Finish the commit in the journal, in a section of the writer. May be repeated from its start."""

    # -- sections ---------------------------------------------------------------------------------

    def read(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function that reads several keys, at one instant between two commits.

        Raises
        ------
        LockTimeoutError
            At once if this thread is in the middle of a commit, so a finalizer or signal handler calls; or if
            a commit takes too long.
        """
        lock = self._lock
        if lock.foreign is not None:
            return self._read_by_foreign_lock(function, *arguments)
        own = lock.own
        readers = own.readers
        mine = object()
        while True:
            try:
                # Registered as a reader first, then the check: rule 1 of locks.py.
                readers[mine] = get_ident()
                if not own.holder and self.journal is None:
                    return function(*arguments)
            finally:
                readers.pop(mine, None)
            lock.refuse_own_section("reading")
            if lock.reads():
                # A signal handler or finalizer in the middle of such a read: no writer is admitted before
                # that read is over.
                return function(*arguments)
            if own.holder:
                lock.wait_for_writer("reading")
            elif self.journal is not None:
                self.settle("reading")

    def _read_by_foreign_lock(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        lock = self._lock
        readers = lock.own.readers
        mine = object()
        while True:
            lock.refuse_own_section("reading")
            if lock.reads():
                return function(*arguments)  # as in `read`
            handle = lock.read_handle()
            if not handle.acquire(timeout=lock.timeout):
                lock.give_up("reading")
            try:
                if self.journal is None:
                    # So that this thread finds itself, and waiting writers can name it.
                    readers[mine] = get_ident()
                    return function(*arguments)
            finally:
                readers.pop(mine, None)
                handle.release()
            self.settle("reading")

    def settle(self, purpose: str, timeout: float | None = None) -> None:
        if self._lock.own.holder:
            self._lock.wait_for_writer(purpose, timeout)
        self.exclusively(purpose, self._restore)

    def _restore(self) -> None:
        """Clear the readers' detour if no transaction is open; everything else is finished by then."""
        self.detour = self.routes or None

    def exclusively(self, operation: str | Claim, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function in a section of the writer that makes no commit.

        Raises
        ------
        LockTimeoutError
            As `read`.
        """
        lock = self._lock
        own = lock.own
        ident = get_ident()
        if own.holder:
            lock.wait_for_writer(purpose_of(operation))
        spare = (ident, operation, function)  # rule 6 of locks.py
        with own.mutex:
            own.holder = ident
            self._preparing = operation
            try:
                if own.readers:
                    lock.wait_for_readers(purpose_of(operation))
                if self.journal is not None or self.abandoned:
                    self.finish_others()
                self.followed = True
                result = function(*arguments)
            finally:
                if lock.foreign is not None:
                    lock.give_back_foreign()
                self._preparing = None
                own.holder = 0
                del spare
        if self.owner.waiters.bells or self.garbage or self.abandoned:
            self.after_section()
        return result

    def after_section(self) -> None:
        """Free dropped objects, and wake a thread that waits to commit; no lock is held."""
        self.garbage.clear()
        if self.abandoned:
            self.settle("ending a block")  # one was freed in the middle of the section
        if not self.owner.claims:
            self.owner.waiters.ring()

    def finish_others(self) -> None:
        """Finish what exceptions have interrupted; at the beginning of a section of the writer."""
        unfinished = self.journal
        if unfinished is not None:
            self.garbage.append(unfinished)  # freed after the section: it has the replaced entries
            self.finish()
        abandoned = self.owner.abandoned
        while abandoned:
            self._roll_back(abandoned[0].claim)
            self.garbage.append(abandoned[0])  # its batch has entries
            abandoned.popleft()

    # -- transactions -----------------------------------------------------------------------------

    def become_owner(self, claim: Claim, timeout: float) -> None:
        """Wait until there is no owner, make a claim the owner, and wait for the end of a running commit.

        If the claim is a transaction's, the thread's calls are routed to it once `detour` is `routes`.
        """
        own, owner = self._lock.own, self.owner
        left = timeout
        if own.readers:
            self._lock.refuse_own_read(claim.purpose)  # its commit could not be made
        while True:
            if own.holder:
                self._lock.wait_for_writer(claim.purpose)
            if self.journal is not None or self.abandoned:
                self.settle(claim.purpose)
            claim.since = time.time()
            if owner.claims.setdefault(OWNER, claim) is claim:
                break
            left = owner.wait(claim, claim.purpose, left, timeout)
        if claim.notes is not None:
            assert claim.route is not None
            self.routes.begin(claim.route)
        if own.holder:
            # That commit may have found no owner, or no route and so cleared the detour: rule 1 of owner.py.
            self._lock.wait_for_writer(claim.purpose)
        if self.journal is not None:
            self.settle(claim.purpose)

    def end(self, claim: Claim) -> None:
        if not claim.ended:
            self.exclusively(claim, self._roll_back, claim)

    def _roll_back(self, claim: Claim) -> None:
        if not claim.ended:
            try:
                self._publisher.roll_back(claim)
            finally:
                self.end_claim(claim)

    def end_claim(self, claim: Claim) -> None:
        """Release what a committed or rolled back transaction holds; in a section."""
        claims = self.owner.claims
        if claims.get(OWNER) is claim:
            claims.pop(OWNER, None)
        claim.ended = True
        claim.route = None
        routes = self.routes
        routes.forget(claim)
        self.detour = routes or None

    def between_commits(self, function: Callable[[int], T]) -> T:
        return self.exclusively("watch", lambda: function(self.revision))

    def close(self, timeout: float | None) -> None:
        self._is_closed = True
        self.alone("close", -1 if timeout is None else timeout, int)

    def alone(self, purpose: str, timeout: float, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function while no other thread can commit; readers continue."""
        blocks = [_Block()]
        claim = Claim(blocks[0], self.abandon, purpose)
        try:
            try:
                self.become_owner(claim, timeout)
                return function(*arguments)
            finally:
                self.end(claim)
        finally:
            # If the call of `end` was interrupted, the next writer ends the block, which is then
            # unreferenced, even if the traceback of the interruption is kept.
            blocks.clear()

    def reopen(self) -> None:
        self._is_closed = False
