"""`RedisEngine`: entries on a Redis or Valkey server, with commits by any number of processes.

1. Reads never wait for writers. One command, one script, or a view (``view.py``) reads one instant.
2. A commit is one script (``commit.lua``): it checks whether the commit may be made, and makes all of it. A
   commit without conditions on earlier reads is sent at once, whatever others do. The check of an optimistic
   transaction runs at the client, for one revision; the server refuses the commit if that is not the last
   revision any more, and the check runs again, after some attempts under the lease.
3. An exclusive transaction is the owner in this process (``owner.py``), and holds the lease of the server
   (``lease.py``), which refuses all other commits meanwhile. Its commit carries the token of the lease.
4. A commit is identified by its session and a number in it (``sessions.py``). If an exception or the network
   interrupts it, the server is asked for the outcome; one not made by then never is (``resolve.lua``).
5. Commits are published from the log (``publication.py``); commits of this engine are recognized there by
   their identification. The log is not read while there are no listeners.

Thread safety: as above. The only locks are the section of the publication, and the section in which a block
ends; neither is held while a commit is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from threading import get_ident
from typing import Any

from latchstore.contract.errors import (
    LockTimeoutError,
    OutcomeUnknownError,
    StoreError,
    TransactionConflictError,
)
from latchstore.contract.ordering import Item, Ordered
from latchstore.delivery.awaiting import in_thread
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.edits import Edit
from latchstore.engine.first_entry import FirstEntry
from latchstore.engine.first_values import FirstValues
from latchstore.engine.follower import Follower
from latchstore.engine.interface import View
from latchstore.engine.owned import Hold, OwnedEngine, block_of
from latchstore.engine.owner import OWNER, Claim, purpose_of
from latchstore.engine.publishing import COMMIT_EVENTS, Publisher
from latchstore.engine.routes import Routes
from latchstore.redis.bounds import CacheCall, Caches
from latchstore.redis.client import Server
from latchstore.redis.committing import NEVER, Sent, arguments_before_edits, outcome, script_of, send
from latchstore.redis.edits import arguments_of, deletes_only
from latchstore.redis.first_values import IndexedValues, first_change, look_back
from latchstore.redis.indexes import LeaseIsOverError, ServerIndexes
from latchstore.redis.lease import Leases, described
from latchstore.redis.log import ServerLog, packed_author
from latchstore.redis.pause import LogPause
from latchstore.redis.pauses import Pauses
from latchstore.redis.publication import ServerPublication
from latchstore.redis.reading import ReadingEngine
from latchstore.redis.refusals import raise_refusal
from latchstore.redis.server_clock import ServerClock
from latchstore.redis.sessions import Sessions
from latchstore.redis.view import NO_PLACE, Place, RedisView

logger: logging.Logger = logging.getLogger("latchstore")

#: Number of times that a commit is checked again after commits of others, before it takes the lease.
_MOST_CHECKS = 5


class RedisEngine(ReadingEngine, OwnedEngine):
    """The entries of a namespace on a server.

    Parameters
    ----------
    server : Server
    timeout : float
        Maximum seconds of any wait.
    lease : float
        Duration of an exclusive transaction's lease unless it is renewed.
    history : int
        Minimum number of commits that the log keeps.
    publisher : Publisher

    Attributes
    ----------
    leases : Leases
        The owner's lease, if it has or requests one, and those of blocks that exceptions have left.
    caches : Caches
        The caches of this process; each of its commits enforces their limits.
    server_clock : ServerClock
    """

    publication: ServerPublication

    def __init__(
        self, server: Server, timeout: float, lease: float, history: int, publisher: Publisher
    ) -> None:
        self.server = server
        self.waits_in_loops = server.serves_loops
        self.timeout = timeout
        self._history = history
        self.publisher = publisher
        self.is_closed: bool = False
        self.leases: Leases = Leases(server, lease)
        # Transactions whose commit was sent, and which have not ended: rule 4.
        self._sent: dict[Claim, Sent] = {}
        # Commits in progress, except those of exclusive transactions.
        self._writing: dict[object, None] = {}
        # The views of optimistic transactions.
        self._views: dict[Claim, RedisView] = {}
        self.routes: Routes = Routes()
        self.indexes: ServerIndexes = ServerIndexes(server)
        self.server_clock: ServerClock = ServerClock(server)
        self.caches: Caches = Caches(server)
        self.sessions: Sessions = Sessions()
        self.publication = publication = ServerPublication(ServerLog(server), publisher)
        self._pause = LogPause(
            server,
            lambda: publication.seen,
            lambda: publisher.dispatcher.throttled,
            publication.observers.interval,
        )
        self.follower: Follower = Follower(self, self._pause)
        self.renew_locks()

    @property
    def revision(self) -> int:  # type: ignore[override]
        """Revision of the last commit of any process."""
        owner = self.owner.claims.get(OWNER)
        if owner is not None and owner.ident == get_ident():
            lease = self.leases.get(owner)
            if lease is not None and lease.place is not None:
                return int(lease.place.revision)  # no other process commits while this thread holds the lease
        return super().revision

    # -- transactions -----------------------------------------------------------------------------

    def begin(self, claim: Claim, exclusive: bool, timeout: float | None = None) -> View | None:
        view = super().begin(claim, exclusive, timeout)
        if isinstance(view, RedisView):
            self._views[claim] = view
        return view

    def acquire(self, claim: Claim, timeout: float) -> Hold:
        return self.leases.take(claim, timeout)

    def end(self, claim: Claim) -> None:
        if claim.ended:
            return
        lease = self.leases.get(claim)
        if lease is not None:
            lease.release()  # not in a section: it sends a request
        super().end(claim)

    def end_claim(self, claim: Claim) -> None:
        self.leases.pop(claim, None)
        self._views.pop(claim, None)
        super().end_claim(claim)
        self._sent.pop(claim, None)

    def resolve(self, claim: Claim | None = None) -> None:
        """Determine the outcome of an interrupted transaction's commit, and continue from there.

        If it is unknown, the event for the transaction's end comes only if the log has its commit.
        """
        sent = None if claim is None else self._sent.get(claim)
        if claim is None or sent is None or claim.revision is not None:
            return
        try:
            revision = outcome(self.server, sent, 0, claim.purpose)
        except OutcomeUnknownError as error:
            logger.warning("%s", str(error))  # not the error itself: handlers may keep it, with its frames
            self.publication.give_up(sent.identity, sent.revision)
            self.end_claim(claim)
            return
        if revision:
            claim.revision = revision
            self.publication.committed(sent.identity, revision)
            self.end_claim(claim)
        else:
            self._not_made(claim)

    def _not_made(self, transaction: Claim) -> None:
        """Forget a commit that was sent and not made."""
        sent = self._sent.get(transaction)
        if sent is not None:
            self.publication.own.pop(sent.identity, None)
            self._sent.pop(transaction, None)

    # -- committing -------------------------------------------------------------------------------

    def commit(
        self,
        edits: Collection[tuple[str, Edit]],
        operation: str | Claim,
        check: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> bool:
        purpose, claim = purpose_of(operation), None if isinstance(operation, str) else operation
        if claim is not None and self.owner.claims.get(OWNER) is claim:
            return self._commit_exclusive(edits, claim)
        timeout = self.timeout if timeout is None else timeout
        if self.abandoned:
            self.end_abandoned()
        writer, writing = object(), self._writing
        writing[writer] = None  # before the check: `close` sets it, and then waits for all writers
        try:
            if self.is_closed:
                self.publisher.refuse(purpose)
            return self._commit_shared(edits, purpose, claim, check, timeout)
        finally:
            writing.pop(writer, None)

    def _commit_shared(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        claim: Claim | None,
        check: Callable[[], None] | None,
        timeout: float,
    ) -> bool:
        """Make a commit while others may make theirs."""
        call = check if isinstance(check, CacheCall) else None
        if claim is None and check is call and OWNER not in self.owner.claims:
            if call is not None:
                call()
            answer = self._send(edits, purpose, None, call=call)
            if answer[0] != b"LOCKED":
                return self._made(answer, None)
        if isinstance(edits, FirstEntry):
            edits.look()
        return self._commit_waiting(edits, purpose, claim, check, timeout)

    def _commit_exclusive(self, edits: Collection[tuple[str, Edit]], claim: Claim) -> bool:
        lease = self.leases[claim]
        assert lease.place is not None
        if edits or self.caches.revocations.of_caller():
            answer = self._send(edits, claim.purpose, claim, lease.token)
            if answer[0] != b"LEASE":
                lease.drop()  # the commit has released it
        else:
            answer = (b"SAME", lease.place.revision) if lease.give_back() else (b"LEASE",)
        if answer[0] == b"LEASE":
            raise self._lease_was_over(claim.purpose)
        return self._made(answer, claim)

    def _lease_was_over(self, purpose: str) -> TransactionConflictError:
        return TransactionConflictError(
            f"{purpose}: its lease of {self.leases.seconds:g} s expired before its end, so others may have "
            "written; nothing was changed; use a longer lease, or a shorter block"
        )

    def _commit_waiting(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        transaction: Claim | None,
        check: Callable[[], None] | None,
        timeout: float,
    ) -> bool:
        """Make a commit that must wait for others, or that has a check.

        If others always commit first, it takes the lease, like an exclusive transaction.
        """
        pauses = Pauses(timeout)
        commit = partial(self._commit_checked, edits, purpose, transaction, check, pauses)
        is_at_once = transaction is not None and OWNER not in self.owner.claims
        if is_at_once and (made := commit()) is not None:
            return made
        # A thread waits for threads; a task would block the one that it waits for.
        in_turn = partial(self._commit_in_turn, commit, pauses, not is_at_once)
        return in_thread(partial(self.with_claim, purpose, in_turn), to_its_end=transaction is not None)

    def _commit_in_turn(
        self, commit: Callable[..., bool | None], pauses: Pauses, is_to_be_tried: bool, claim: Claim
    ) -> bool:
        """Make a commit in this thread's turn, and under the lease if that is not enough."""
        made = None
        # This process's turn: from here on, only other processes are waited for.
        self.wait_for_turn(claim, pauses.left)
        if is_to_be_tried:
            made = commit()
        if made is None:
            block_of(claim).hold = self.acquire(claim, pauses.left)
            made = commit(self.leases[claim].token)
        assert made is not None
        return made

    def _commit_checked(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        transaction: Claim | None,
        check: Callable[[], None] | None,
        pauses: Pauses,
        token: bytes = b"",
    ) -> bool | None:
        """Make a commit with its check; None if others committed first at every attempt without a lease."""
        moved = 0
        call = check if isinstance(check, CacheCall) else None
        view = None if transaction is None else self._views.get(transaction)
        # Reads of a transaction are valid if there was no commit since: then there is nothing to check.
        place = NO_PLACE if view is None else view.place
        is_checked = check is None or call is not None or bool(view is not None and edits)
        while True:
            if call is not None:
                call()
            if check is not None and not is_checked:
                place = self._checked(check, view)
            if not edits and call is None and not self.caches.revocations.of_caller():
                return self._made((b"SAME", place[0] or b"%d" % self.revision), transaction)
            answer = self._send(edits, purpose, transaction, token, place, call)
            if answer[0] == b"LOCKED":
                if pauses.are_over:
                    raise LockTimeoutError(
                        f"{purpose}: no write lock in {pauses.timeout:g} s, {described(answer[1])}"
                    )
                pauses.sleep()
            elif answer[0] == b"LEASE":
                raise self._lease_was_over(purpose)
            elif answer[0] != b"MOVED":
                return self._made(answer, transaction)
            elif (moved := moved + 1) == _MOST_CHECKS and not token:
                return None
            elif view is not None and not is_checked:
                # A check stops if the last commit has the revision of the view's: another commit may have it
                # as well, if the server has lost the view's.
                view.changed()
            is_checked = check is None

    def _checked(self, check: Callable[[], None], view: RedisView | None) -> Place:
        """Run a check; return a commit such that the check holds after it and before the next one."""
        if view is not None:
            view.validated = view.place
            check()
            return view.validated
        about = self.server.call(b"HMGET", self.server.tag + b":about", b"revision", b"id")
        check()
        return about[0] or b"0", about[1] or b""

    def _send(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        transaction: Claim | None,
        token: bytes = b"",
        place: Place = NO_PLACE,
        call: CacheCall | None = None,
    ) -> Sequence[Any]:
        """Send a commit; return the script's answer, or raise the error of one of the edits."""
        while True:
            brought = self.caches.brought(edits, call)
            try:
                answer = self._answer(edits, purpose, transaction, token, place, brought.argument)
            except BaseException:
                brought.put_back()
                raise
            brought.note(answer, call)
            if answer[0] not in (b"CACHE", b"CACHES"):
                break
            self.caches.refuse(answer)
        raise_refusal(answer)
        return answer

    def _answer(
        self,
        edits: Collection[tuple[str, Edit]],
        purpose: str,
        transaction: Claim | None,
        token: bytes,
        place: Place,
        caches: bytes,
    ) -> Sequence[Any]:
        """Send a commit until it is answered; return the script's answer."""
        known, script = self.indexes.known, script_of(deletes_only(edits), self.caches.are_there)
        edit_arguments = arguments_of(edits, known.indexes.names)
        author = b"" if transaction is None else packed_author(transaction.info)
        session = self.sessions.take()
        while True:
            session.number += 1
            sent = Sent(session, self._next_of(transaction, place))
            if transaction is not None:
                # Both before it is sent: so its owner is known if it is found in the log, or interrupted.
                self.publication.own[sent.identity] = transaction
                self._sent[transaction] = sent
            before = arguments_before_edits(sent, token, place, known.version, self._history, author, caches)
            arguments = (*before, *edit_arguments)
            if isinstance(edits, FirstEntry):
                edits.look_back = partial(look_back, self.server, self.publication.log, sent)
            try:
                answer = send(self.server, sent, script, arguments, self.timeout, purpose)
            except (OSError, StoreError) as error:
                if transaction is not None and not isinstance(error, OutcomeUnknownError):
                    self._not_made(transaction)
                raise
            if answer[0] == b"OK":
                revision = int(answer[1])
                if transaction is not None:
                    transaction.revision = revision  # first: from here on the outcome is known
                if isinstance(edits, FirstEntry):
                    edits.made(*first_change(self.publication.log, answer))  # its key was not known before
                self.publication.observers.changed(key for key, _ in edits)
                self.publication.committed(sent.identity, revision)
                break
            if transaction is not None:
                self._not_made(transaction)
            if answer[0] == b"INDEXES":
                known = self.indexes.load()
                edit_arguments = arguments_of(edits, known.indexes.names)
            elif answer[0] != NEVER:
                break
        self.sessions.give(session)  # not in a `finally`: after an interruption a session is not reused
        return answer

    def _next_of(self, transaction: Claim | None, place: Place) -> int:
        """Return the revision of a transaction's commit, if it is made; 0 without a transaction."""
        lease = None if transaction is None else self.leases.get(transaction)
        last = place if lease is None or lease.place is None else lease.place
        return int(last[0] or -1) + 1

    def _made(self, answer: Sequence[Any], transaction: Claim | None) -> bool:
        """Finish a commit that was made, or has changed nothing."""
        if transaction is None:
            return self.publication.following
        revision = int(answer[1])
        deliveries: Sequence[Delivery] = ()
        if answer[0] == b"SAME" and self.publisher.has_listeners(COMMIT_EVENTS):
            deliveries = self.publisher.deliveries_of((), revision, transaction)
        transaction.revision = revision
        if deliveries:
            self.publication.during(self.publisher.publish, (), revision, transaction, deliveries)
        self.end_claim(transaction)
        return bool(deliveries) or self.publication.following

    # -- indexes ----------------------------------------------------------------------------------

    def add_indexes(self, indexes: Sequence[str | Ordered]) -> None:
        """Add those indexes that do not exist."""
        listed = self.indexes.load().indexes.listed if indexes else ()
        missing = [index for index in indexes if index not in listed]
        if missing:
            self._alone("add_index", partial(self.indexes.add, indexes=missing))

    def first_values(self, queue: str, name: str, prefixes: Sequence[str]) -> FirstValues:
        add_index = partial(self.add_indexes, (Ordered(Item(name)),))
        return IndexedValues(self.server, self.indexes, add_index, name)

    def remove_index(self, index: str | Ordered) -> None:
        """Remove an index, for all processes; KeyError if it does not exist."""
        self._alone("remove_index", partial(self.indexes.remove, index=index))

    def _alone(self, purpose: str, function: Callable[[bytes], None]) -> None:
        """Call a function with the token of a lease, while no other process writes."""

        def call(claim: Claim) -> None:
            self.become_owner(claim, None)
            function(self.leases[claim].token)

        try:
            self.with_claim(purpose, call)
        except LeaseIsOverError:
            raise self._lease_was_over(purpose) from None

    # -- the rest ---------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        indexes = self.indexes.load().indexes
        return {"keys": self.count(), "revision": self.revision, "indexes": list(indexes.listed)}

    def close(self, timeout: float | None) -> None:
        super().close(timeout)
        pauses = Pauses(-1 if timeout is None else timeout)
        while self._writing:
            if pauses.are_over:
                raise LockTimeoutError(f"close: a commit has not ended in {timeout:g} s")
            pauses.sleep()

    def reopen(self) -> None:
        self.server.reopen()
        self.is_closed = False
        self.follow()

    def give_up(self) -> None:
        """Close what a closed store keeps open; each read then opens it again for its own time."""
        self.follower.stop()
        self.leases.stop()
        self.publication.following = False
        self.server.close()

    def renew_in_child(self) -> None:
        self.server.renew_in_child()
        self.sessions.renew_in_child()
        self.publication.renew_in_child()
        self.routes.clear()
        self.follower.renew_in_child()
        self._pause.renew_in_child()
        self.leases.renew_in_child()
        self.caches.revocations.renew_in_child()
        self._views.clear()
        self._writing.clear()
        self._sent.clear()
        self.renew_locks()
