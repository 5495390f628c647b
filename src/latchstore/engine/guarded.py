"""Sections of the table lock, and the owner: who may do what when, for the engine in memory.

Thread safety: rules 1, 2, 3 and 5 of ``table.py``, which has the whole of them.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import NamedTuple, TypeVar, TypeVarTuple

from latchstore.contract.events import StoreTransactionStartEvent
from latchstore.engine.interface import Engine
from latchstore.engine.locks import AnyReadWriteLock, TableLock
from latchstore.engine.owner import OWNER, Activity, Claim, Ownership, Route
from latchstore.engine.publishing import Publisher
from latchstore.engine.routes import Routes

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Latches(NamedTuple):
    """What keeps threads out of a table: for a commit, and for a whole exclusive transaction."""

    table: TableLock
    writer: Ownership


class _Block:
    """Held by the call of a method that keeps other writers out."""

    __slots__ = ("__weakref__",)


class GuardedEngine(Engine):
    """An engine whose state is guarded by one table lock.

    A subclass has the state, and finishes what was broken off (`finish`).

    Parameters
    ----------
    lock_class : callable
        Makes the reader/writer lock.
    timeout : float
        Seconds that any wait may take.
    publisher : Publisher
        Told of transactions.

    Attributes
    ----------
    journal : tuple or None
        The commit that is decided and not finished.
    detour : object or None
        Has the identifier of each thread that may not take what it has read of a single key without a lock.
    followed : bool
        Whether anything may follow the commits, such as an index. What begins to do so begins in a section
        that makes no commit (`exclusively`), which sets it; a commit that finds nothing takes it back. hot
        path: it is one look in place of one at each kind.
    garbage : deque
        What was dropped in a section; freed after it.
    """

    __slots__ = (
        "_has_listeners",
        "_is_closed",
        "_lock",
        "_lock_class",
        "_preparing",
        "_publisher",
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
        # hot path: each commit calls it.
        self._has_listeners = publisher.has_listeners
        self._is_closed = False
        self.revision: int = 0
        self.routes: Routes = Routes()
        self.detour = None
        self.journal = None
        self.followed: bool = True
        self.garbage: deque[object] = publisher.garbage
        # What the writer in a section is doing, for whoever has to wait for it.
        self._preparing: str | None = None
        self._renew_locks()

    def _renew_locks(self) -> None:
        # Guards all of the above: see the table in locks.py.
        self._lock = TableLock(self._lock_class(), self.timeout)
        self._lock.busy_with = self._busy_with
        self.owner: Ownership = Ownership()
        self.abandoned: deque[Route] = self.owner.abandoned

    def _busy_with(self) -> str:
        return self._preparing or "a commit"

    @property
    def latches(self) -> Latches:
        """The lock and the owner of this moment."""
        return Latches(self._lock, self.owner)

    def activity(self) -> Activity:
        return self.owner.activity()

    @abstractmethod
    def finish(self) -> None:
        """Finish the commit of the journal; in a section of the writer. May be done again from its start."""

    # -- sections ---------------------------------------------------------------------------------

    def read(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours that reads several keys, at one instant between two commits.

        Raises
        ------
        LockTimeoutError
            At once if this thread is in the middle of a commit (a finalizer or a signal handler calls); or if
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
                # Among the readers first, then the look: rule 1 of locks.py.
                readers[mine] = get_ident()
                if not own.holder and self.journal is None:
                    return function(*arguments)
            finally:
                readers.pop(mine, None)
            lock.refuse_own_section("reading")
            if lock.reads():
                # A signal handler or a finalizer, in the middle of such a read: no writer gets in before that
                # is over.
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
                    # So that this thread finds itself, and writers that wait can name it.
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
        """Have readers make no detour if no transaction is open; all else is finished by then."""
        self.detour = self.routes or None

    def exclusively(self, purpose: str, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours in a section of the writer, which makes no commit.

        Raises
        ------
        LockTimeoutError
            As `read`.
        """
        lock = self._lock
        own = lock.own
        ident = get_ident()
        if own.holder:
            lock.wait_for_writer(purpose)
        spare = (ident, purpose, function)  # rule 6 of locks.py
        with own.mutex:
            own.holder = ident
            self._preparing = purpose
            try:
                if own.readers:
                    lock.wait_for_readers(purpose)
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
        """Free what was dropped, and wake a thread that waits to commit; no lock is held."""
        self.garbage.clear()
        if self.abandoned:
            self.settle("ending a block")  # that was freed in the middle of the section
        if not self.owner.claims:
            self.owner.waiters.ring()

    def finish_others(self) -> None:
        """Finish what exceptions have broken off; at the beginning of a section of the writer."""
        unfinished = self.journal
        if unfinished is not None:
            self.garbage.append(unfinished)  # freed after the section: it has replaced entries
            self.finish()
        abandoned = self.owner.abandoned
        while abandoned:
            self._roll_back(abandoned[0].claim)
            self.garbage.append(abandoned[0])  # its batch has entries
            abandoned.popleft()

    # -- transactions -----------------------------------------------------------------------------

    def begin_exclusive(self, claim: Claim, timeout: float) -> None:
        """Make a transaction the owner, and have the calls of this thread go to it.

        Raises
        ------
        LockTimeoutError
            If another writer does not end in time; it names the writer.
        StoreClosedError
        """
        self.become_owner(claim, timeout)
        self.detour = self.routes
        if self._is_closed:
            self._publisher.refuse(claim.purpose)
        if self._has_listeners(StoreTransactionStartEvent):
            self.exclusively(claim.purpose, self._publisher.begin, claim)

    def become_owner(self, claim: Claim, timeout: float) -> None:
        """Wait until nobody is the owner, make a claim it, and wait for the end of a commit under way.

        The calls of the thread go to the claim's transaction, if it is one, when `detour` has `routes`.
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
            # It may have found no owner, or no route and so take the detour away: rule 1 of owner.py.
            self._lock.wait_for_writer(claim.purpose)
        if self.journal is not None:
            self.settle(claim.purpose)

    def end(self, claim: Claim) -> None:
        if not claim.ended:
            self.exclusively(claim.purpose, self._roll_back, claim)

    def _roll_back(self, claim: Claim) -> None:
        if not claim.ended:
            try:
                self._publisher.roll_back(claim)
            finally:
                self.end_claim(claim)

    def end_claim(self, claim: Claim) -> None:
        """Take away what a transaction has that was committed or rolled back; in a section."""
        claims = self.owner.claims
        if claims.get(OWNER) is claim:
            claims.pop(OWNER, None)
        claim.ended = True
        claim.route = None
        self.routes.forget(claim)
        self.detour = self.routes or None

    def between_commits(self, function: Callable[[int], T]) -> T:
        return self.exclusively("watch", lambda: function(self.revision))

    def close(self, timeout: float | None) -> None:
        self._is_closed = True
        self.alone("close", -1 if timeout is None else timeout, int)

    def alone(self, purpose: str, timeout: float, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours while nobody commits; readers go on."""
        blocks = [_Block()]
        claim = Claim(blocks[0], self.abandoned, purpose)
        try:
            try:
                self.become_owner(claim, timeout)
                return function(*arguments)
            finally:
                self.end(claim)
        finally:
            # If the call of `end` was struck, whoever writes next ends the block, which nobody holds: the
            # traceback of what has struck it may be kept.
            blocks.clear()

    def reopen(self) -> None:
        self._is_closed = False
