"""Who writes: the owner, and what has become of a commit that was broken off.

Thread safety: rules 2, 4 and 5 of ``engine.py``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from latchstore.contract.errors import LockTimeoutError
from latchstore.contract.events import StoreTransactionStartEvent
from latchstore.delivery.waiting import Latch
from latchstore.engine.interface import View
from latchstore.engine.owner import OWNER, Claim, Ownership, Route
from latchstore.engine.publishing import Publisher
from latchstore.sqlite.publication import Decided, Publication
from latchstore.sqlite.reading import ReadingEngine
from latchstore.sqlite.rows import stored_key
from latchstore.sqlite.running import run
from latchstore.sqlite.statements import LOGGED
from latchstore.sqlite.turns import Turns
from latchstore.sqlite.view import SqliteView
from latchstore.sqlite.writer_lock import Hold, WriterLock


class Block:
    """Held by the call of a method that writes, in a list, which that clears by one call in C when it leaves.

    So it is freed even if an exception has struck the call of `end` and its traceback is kept: whoever writes
    next ends it.

    Attributes
    ----------
    hold : Hold
        The lock of all processes, once it has that.
    """

    __slots__ = ("__weakref__", "hold")


def block_of(claim: Claim) -> Any:
    """Return the block of a claim, if somebody holds it."""
    return claim.route and claim.route()


class OwnedEngine(ReadingEngine):
    """An engine to which one thread of all processes writes at a time.

    Attributes
    ----------
    owner : Ownership
        Who writes in this process.
    writer : WriterLock
        Held while there is an owner.
    publication : Publication
    publisher : Publisher
    is_closed : bool
        Whether commits are refused.
    """

    publisher: Publisher
    publication: Publication
    writer: WriterLock
    is_closed: bool

    def renew_locks(self) -> None:
        """Begin with nobody writing."""
        self.owner: Ownership = Ownership()
        self.abandoned: deque[Route] = self.owner.abandoned
        self._turns = Turns()
        # Held while a claim is ended, so that nobody gives back the lock of the next one.
        self._ending = Latch()

    def become_owner(self, claim: Claim, timeout: float | None, of_all: bool = True) -> None:
        """Wait until nobody writes; `of_all`: nor in another process."""
        timeout = self.timeout if timeout is None else timeout
        left = self._wait_for_turn(claim, timeout)
        if self.publication.journal is not None:
            self.resolve()
        if of_all:
            # The block has the lock, and nothing else, no local variable either: a block that is freed
            # without an end has it no more, whether or not anybody calls this engine again.
            block_of(claim).hold = self.writer.acquire(claim.purpose, left)

    def _wait_for_turn(self, claim: Claim, timeout: float) -> float:
        """Wait until nobody writes in this process; return the seconds that are left."""
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
                    turn = turns.join(stay)
                elif owner.is_to_be_waited_for(claim.purpose, left, timeout) or not turns.may_try(turn):
                    if left == 0:
                        raise LockTimeoutError(
                            f"{claim.purpose}: no write lock in {timeout:g} s, {owner.describe()}"
                        )
                    left = turn.sleep(left)
        finally:
            stay.clear()

    def end_abandoned(self) -> None:
        """End blocks that were freed without an end."""
        while self.abandoned:
            try:
                route = self.abandoned[0]
            except IndexError:
                return
            self.end(route.claim)
            try:  # noqa: SIM105
                self.abandoned.remove(route)
            except ValueError:
                pass  # another thread was quicker

    def end(self, claim: Claim) -> None:
        if claim.ended:
            return
        self.resolve(claim)
        if not claim.ended:
            if claim.notes is not None and claim.revision is None:
                self.publication.during(lambda: self.publisher.roll_back(claim))
            self.end_claim(claim)

    def end_claim(self, claim: Claim) -> None:
        """Take away what a block has that was committed or rolled back."""
        self._ending.during(self._take_away, claim)
        self._turns.ring()

    def _take_away(self, claim: Claim) -> None:
        claims = self.owner.claims
        if claims.get(OWNER) is claim:
            # No variable has the block: the traceback of what strikes here may be kept.
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

    # -- transactions -----------------------------------------------------------------------------

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = None
        if exclusive:
            self.become_owner(claim, timeout)
            if self.is_closed:
                self.publisher.refuse(claim.purpose)
        else:
            view = SqliteView(self.connections)
        if self.publisher.has_listeners(StoreTransactionStartEvent):
            self.publication.during(lambda: self.publisher.begin(claim))
        assert claim.route is not None
        self.routes.begin(claim.route)
        return view

    def finish(self, decided: Decided) -> None:
        """Publish a commit that was made, and end its block; in the section. May be done again."""
        publication, claim = self.publication, decided.claim
        claim.revision = decided.revision
        publication.publish(decided)
        publication.journal = None  # first: the next owner has its own
        self.end_claim(claim)

    def resolve(self, claim: Claim | None = None) -> None:
        """Find out whether the commit of the journal was made, and go on from there.

        Parameters
        ----------
        claim : Claim, optional
            Only if it is the commit of this one.
        """
        decided = self.publication.journal
        if decided is None or (claim is not None and decided.claim is not claim):
            return
        if run(self.connections, "resolving", partial(_has_made, decided)):
            self.publication.during(lambda: self.finish(decided))
        else:
            self.publication.journal = None

    def alone(self, purpose: str, function: Callable[[sqlite3.Connection], object]) -> None:
        """Call a function of ours in a transaction of SQLite's that is no commit of the store's."""
        blocks = [Block()]
        claim = Claim(blocks[0], self.abandoned, purpose)

        def call(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            function(connection)
            connection.execute("COMMIT")

        try:
            try:
                self.become_owner(claim, None)
                run(self.connections, purpose, call)
            finally:
                self.end(claim)
        finally:
            blocks.clear()


def _has_made(decided: Decided, connection: sqlite3.Connection) -> bool:
    """Tell whether a commit was made: by now another process may have made one of the same revision."""
    key, _, new = decided.changes[0]
    wanted = (stored_key(key), None if new is None else new.modified, os.getpid())
    found: tuple[object, ...] | None = connection.execute(LOGGED, (decided.revision,)).fetchone()
    return found == wanted
