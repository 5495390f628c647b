"""`OwnedEngine`: an engine to which one thread of all processes writes at a time.

The writer in this process is the owner (``owner.py``), for which threads wait their turn (``turns.py``). It
then acquires a `Hold`, which keeps other processes out and is referenced by the block of its call. So a block
that is freed without being exited blocks nobody.

Thread safety: `claims` is changed by single dict operations, and by a thread that ends a block in the section
of a latch.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.events import StoreTransactionStartEvent
from latchstore.delivery.waiting import Latch
from latchstore.engine.following import FollowingEngine
from latchstore.engine.interface import View
from latchstore.engine.owner import OWNER, Activity, Claim, Ownership, Route, Writer, writer_of
from latchstore.engine.turns import Turns

T = TypeVar("T")


class Hold(Protocol):
    """Keeps other processes from writing until it is released.

    Attributes
    ----------
    drop : callable
        Releases it, by one call in C; does nothing if it was released.
    """

    drop: Callable[[], None]

    def release(self) -> None:
        """Release it, so that the next writer gets it sooner; do nothing if it was released."""


class Block:
    """Referenced by the call of a writing method, in a list that the call clears by one call in C at its end.

    So it is freed even if an exception has interrupted the call of `end` and its traceback is kept; the next
    writer then ends it.

    Attributes
    ----------
    hold : Hold
        Keeps other processes out, once it is acquired.
    """

    __slots__ = ("__weakref__", "hold")


def block_of(claim: Claim) -> Any:
    """Return the block of a claim, or None if it was freed."""
    return claim.route and claim.route()


class OwnedEngine(FollowingEngine):
    """The methods of an engine that control who writes.

    Attributes
    ----------
    owner : Ownership
        The writer in this process.
    """

    def renew_locks(self) -> None:
        """Reset to no writer."""
        self.owner: Ownership = Ownership()
        self.abandoned: deque[Route] = self.owner.abandoned
        self.abandon = self.owner.abandoned.append
        self._turns = Turns()
        # Held while a claim is ended, so that no thread releases the lock of the next one.
        self._ending = Latch()

    # -- implemented by an engine -----------------------------------------------------------------

    @abstractmethod
    def acquire(self, claim: Claim, timeout: float) -> Hold:
        """Wait until no other process writes; raise LockTimeoutError on timeout; negative waits forever."""

    @abstractmethod
    def resolve(self, claim: Claim | None = None) -> None:
        """Find out the outcome of a commit that an exception has interrupted, and continue from there.

        Parameters
        ----------
        claim : Claim, optional
            Restricts it to the commit of this claim.
        """

    # -- beginning --------------------------------------------------------------------------------

    def become_owner(self, claim: Claim, timeout: float | None, of_all: bool = True) -> None:
        """Wait until no other thread writes, and with `of_all` no other process."""
        timeout = self.timeout if timeout is None else timeout
        left = self.wait_for_turn(claim, timeout)
        self.resolve()
        if of_all:
            # Only the block references the lock, and no local variable: a block that is freed without being
            # exited releases it, whether or not this engine is called again.
            block_of(claim).hold = self.acquire(claim, left)

    def with_claim(self, purpose: str, function: Callable[[Claim], T]) -> T:
        """Call a function of ours with a claim, which lasts until the end of the call."""
        blocks = [Block()]
        claim = Claim(blocks[0], self.abandon, purpose)
        try:
            try:
                return function(claim)
            finally:
                self.end(claim)
        finally:
            blocks.clear()

    def wait_for_turn(self, claim: Claim, timeout: float) -> float:
        """Wait until no other thread of this process writes; return the remaining seconds."""
        left, owner, turns = timeout, self.owner, self._turns
        turn, stay = None, list[None]()
        try:
            while True:
                if self.abandoned:
                    self.end_abandoned()
                claim.since = time.time()
                if turns.may_try(turn) and owner.claims.setdefault(OWNER, claim) is claim:
                    return left
                if turn is None:
                    turn = turns.join(stay, claim)
                elif owner.is_to_be_waited_for(claim.purpose, left, timeout) or not turns.may_try(turn):
                    if left == 0:
                        raise LockTimeoutError(
                            f"{claim.purpose}: no write lock in {timeout:g} s, {owner.describe()}"
                        )
                    left = turn.sleep(left)
        finally:
            stay.clear()

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = None
        if exclusive:
            self.become_owner(claim, timeout)
            if self.is_closed:
                self.publisher.refuse(claim.purpose)
        else:
            view = self.view()
        if self.publisher.has_listeners(StoreTransactionStartEvent):
            self.publication.during(self.publisher.begin, claim)
        assert claim.route is not None
        self.routes.begin(claim.route)
        return view

    # -- ending -----------------------------------------------------------------------------------

    def end_abandoned(self) -> None:
        while self.abandoned:
            try:
                route = self.abandoned[0]
            except IndexError:
                return
            self.end(route.claim)
            try:  # noqa: SIM105
                self.abandoned.remove(route)
            except ValueError:
                pass  # another thread has removed it

    def end(self, claim: Claim) -> None:
        if claim.ended:
            return
        self.resolve(claim)
        if not claim.ended:
            if claim.notes is not None and claim.revision is None:
                self.publication.during(self.publisher.roll_back, claim)
            self.end_claim(claim)

    def end_claim(self, claim: Claim) -> None:
        """Release what a committed or rolled back block holds."""
        self._ending.during(self._take_away, claim)
        self._turns.ring()

    def activity(self) -> Activity:
        return Activity(self._writer(), self._turns.waiting())

    def _writer(self) -> Writer | None:
        """Return the writer, in this process or another."""
        claim = self.owner.claim
        if claim is not None and getattr(block_of(claim), "hold", None) is not None:
            return writer_of(claim)
        return self.writer_elsewhere()

    def writer_elsewhere(self) -> Writer | None:
        """Return the writer in another process, if it can be found without blocking writers."""
        return None

    def _take_away(self, claim: Claim) -> None:
        claims = self.owner.claims
        if claims.get(OWNER) is claim:
            # No local variable references the block: the traceback of an interruption here may be kept.
            hold: Hold | None = getattr(block_of(claim), "hold", None)
            if hold is not None:
                try:
                    hold.release()
                finally:
                    hold.drop()
            claims.pop(OWNER, None)
        claim.ended = True
        claim.route = None
        if claim.notes is not None:
            self.routes.forget(claim)

    def close(self, timeout: float | None) -> None:
        self.is_closed = True
        seconds = -1 if timeout is None else timeout
        self.with_claim("close", lambda claim: self.become_owner(claim, seconds, of_all=False))
