"""A job that a worker has claimed, and how it ends.

Thread safety:

1. A claim is known by two items of the job's metadata: its rank, which no other job has, and the number of
   attempts, which each claim raises. Each change of a job is one commit, on the condition that its place and
   the attempts are those that this worker has written. If they are not, one looks: with another rank or other
   attempts the job is another worker's, or another job; else its place alone was changed, and the commit is
   made on the condition of that. So of two workers that take a job to be theirs one is refused, and what
   users write into the metadata meanwhile is no loss of the lease.
2. A lease that has run out is lost when the job is claimed again, and not before: who ends it until then has
   done the work of that attempt, and nobody else has.
3. No lock is held; codec, clock and backoff are called outside of all.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from latchstore.contract.arguments import describe
from latchstore.contract.codec import V, decoded
from latchstore.contract.errors import LeaseLostError
from latchstore.contract.values import Entry
from latchstore.engine.edits import Delete, Edit, IfItems, MergeMetadata, OtherItemsError
from latchstore.engine.first_entry import commit_edit
from latchstore.queue import places
from latchstore.queue.settings import Settings, checked_delay, checked_lease

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

logger: logging.Logger = logging.getLogger("latchstore")

#: Exceptions of whoever runs the worker, which say nothing about the job.
_INTERRUPTS = (KeyboardInterrupt, GeneratorExit)

_DELETE = Delete()

#: What the payload is before it has been decoded.
_UNKNOWN: Any = object()

#: How many characters of a reason are kept.
_LONGEST_REASON = 1_000


class Job(Generic[V]):
    """A job that a worker has claimed; `WorkQueue.claim` makes it.

    As a context manager it ends with its block: it is acknowledged if the block succeeds. If an exception
    leaves the block, that is passed on, and the job is tried again after a pause, or becomes a dead letter if
    it was the last attempt. An interrupt (KeyboardInterrupt, GeneratorExit) gives it back at once.

    A job that is ended inside a transaction of the store ends with that transaction: `ack` is committed
    together with what the transaction has written, or neither of them is.

    Attributes
    ----------
    attempts : int
        How often it was claimed, this time included.
    leased_until : float
        When the lease ends, in seconds since the epoch.
    """

    __slots__ = (
        "_entry",
        "_full_key",
        "_metadata",
        "_outcome",
        "_payload",
        "_place",
        "_settings",
        "attempts",
        "leased_until",
    )

    def __init__(
        self, settings: Settings[V], full_key: str, entry: Entry, items: dict[str, Any], until: float
    ) -> None:
        self._settings = settings
        self._full_key = full_key
        # As it was before it was claimed.
        self._entry = entry
        self._place: str = items[places.PLACE]
        self._payload: V = _UNKNOWN
        self._metadata: dict[str, Any] | None = None
        # How this claim has ended; None as long as it has not.
        self._outcome: str | None = None
        self.attempts: int = items[places.ATTEMPTS]
        self.leased_until: float = until

    @property
    def key(self) -> str:
        """The key in the queue; in the store it begins with the name of the queue and a slash."""
        return self._settings.job_key_of(self._full_key)

    @property
    def _rank(self) -> str:
        return places.rank_in(self._place)

    @property
    def payload(self) -> V:
        """What was put; decoded when it is first asked for.

        Raises
        ------
        CodecError
            If it cannot be decoded; in a block of the job an exception like any other.
        """
        if self._payload is _UNKNOWN:
            self._payload = decoded(self._settings.codec, self._full_key, self._entry.content)
        return self._payload

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given to `WorkQueue.put`, or written to the metadata since."""
        if self._metadata is None:
            self._metadata = places.own_items(self._entry.isolated_metadata())
        return self._metadata

    @property
    def priority(self) -> int:
        """The priority that the job was put with."""
        return places.Place("", "", 0, self._rank).priority

    @property
    def outcome(self) -> str | None:
        """How this worker ended the job: ``"acked"``, ``"retried"``, ``"failed"``, ``"released"`` or None."""
        return self._outcome

    # -- how a job ends ---------------------------------------------------------------------------

    def ack(self) -> None:
        """Acknowledge the job: it is done, and removed from the store.

        Raises
        ------
        LeaseLostError
            If the lease has run out and another worker has claimed the job since, or if it was ended before,
            replaced or deleted.
        """
        self._commit("acked", _DELETE)

    def retry(self, delay: Seconds | None = None, reason: str = "") -> bool:
        """Have the job tried again; after the last attempt it becomes a dead letter.

        Parameters
        ----------
        delay : Seconds, optional
            Seconds before it can be claimed; by default what the queue's `backoff` returns. The job keeps its
            place among those of its priority.
        reason : str
            Why this attempt failed.

        Returns
        -------
        again : bool
            False if it has become a dead letter.

        Raises
        ------
        LeaseLostError
            As `ack`.
        """
        settings = self._settings
        pause = None if delay is None else checked_delay(delay, "delay")
        if self.attempts >= settings.max_attempts:
            self.fail(reason or f"attempt {self.attempts} of {settings.max_attempts} was given up")
            return False
        if pause is None:
            pause = settings.pause_after(self.attempts)
        self._back_to_queue("retried", pause, _checked_reason(reason))
        return True

    def fail(self, reason: str = "") -> None:
        """Make the job a dead letter, which is kept until it is requeued or discarded.

        Parameters
        ----------
        reason : str
            Why; its first 1,000 characters are kept.

        Raises
        ------
        LeaseLostError
            As `ack`.
        """
        settings = self._settings
        place = places.dead(settings.name, settings.clock(), self._rank)
        self._put_items("failed", {places.PLACE: place, places.REASON: _checked_reason(reason)})

    def release(self) -> None:
        """Give the job back at once, whatever the number of attempts.

        Raises
        ------
        LeaseLostError
            As `ack`.
        """
        self._back_to_queue("released", 0.0, "")

    def extend(self, lease: Seconds = 60) -> None:
        """Have the lease end later: so many seconds from now.

        Parameters
        ----------
        lease : Seconds

        Raises
        ------
        LeaseLostError
            As `ack`.
        """
        settings = self._settings
        until = settings.clock() + checked_lease(lease)
        place = places.leased(settings.name, until, self._rank)
        self._put_items(None, {places.PLACE: place})
        self._place, self.leased_until = place, until

    def _back_to_queue(self, outcome: str, pause: float, reason: str) -> None:
        settings = self._settings
        if pause:
            place = places.delayed(settings.name, settings.clock() + pause, self._rank)
        else:
            place = places.ready(settings.name, self._rank)
        items = {places.PLACE: place}
        if reason:
            items[places.REASON] = reason
        self._put_items(outcome, items)

    def _put_items(self, outcome: str | None, items: dict[str, Any]) -> None:
        self._commit(outcome, MergeMetadata(Entry(items)))

    def _commit(self, outcome: str | None, edit: Edit) -> None:
        """Commit a change of the job, if it is still this worker's: rule 1."""
        if self._outcome is not None:
            raise self._lost(f"this worker has {self._outcome} it before")
        store, key, place = self._settings.store, self._full_key, self._place
        while True:
            expected = ((places.PLACE, place), (places.ATTEMPTS, self.attempts))
            try:
                transaction = commit_edit(store, key, IfItems(edit, expected), "a job's end")
            except OtherItemsError:
                place = self._place_now()
                continue
            break
        if outcome is not None:
            self._outcome = outcome
        if transaction is not None:
            transaction.on_rollback(self._read_lease if outcome is None else self._reopen)

    def _place_now(self) -> str:
        """Return the place of the job, if it is still this worker's."""
        settings = self._settings
        try:
            metadata = settings.store.get_metadata(self._full_key)
        except KeyError:
            raise self._lost("it is not in the store any more: acknowledged by another, or deleted") from None
        place = places.place_of(metadata, settings.name)
        if place is None or places.rank_in(place) != self._rank:
            raise self._lost("it was replaced, or requeued, and is another job now")
        if metadata.get(places.ATTEMPTS) != self.attempts:
            raise self._lost(
                "its lease had run out, and another worker has claimed it; a longer lease, or extend() while "
                "the work goes on, would have kept it"
            )
        if places.parsed(place).state == "dead":
            raise self._lost("its lease had run out after the last attempt, and it is a dead letter")
        return place

    def _lost(self, why: str) -> LeaseLostError:
        return LeaseLostError(self._settings.name, self.key, self.attempts, why)

    def _read_lease(self) -> None:
        settings = self._settings
        try:
            place = places.place_of(settings.store.get_metadata(self._full_key), settings.name)
        except KeyError:
            return
        if place is not None:
            self._place, self.leased_until = place, places.parsed(place).time / 1_000_000

    def _reopen(self) -> None:
        self._outcome = None

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._outcome is not None:
            return
        if error is None:
            self.ack()
            return
        try:
            self.end_after(error)
        except LeaseLostError as lost:
            logger.info("%s; its block was left by %s", lost, describe(error))

    def end_after(self, error: BaseException) -> None:
        """End the job as its block does when an exception leaves that; nothing happens if it has ended.

        Raises
        ------
        LeaseLostError
            As `ack`.
        """
        if self._outcome is not None:
            return
        if isinstance(error, _INTERRUPTS):
            self.release()
        elif isinstance(error, Exception):
            self.retry(reason=describe(error))
        else:
            self.retry(0, describe(error))

    def __repr__(self) -> str:
        state = self._outcome or "leased"
        return f"<job {self.key!r} of queue {self._settings.name!r}, attempt {self.attempts}, {state}>"


def _checked_reason(reason: str) -> str:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {describe(reason)}")
    return str.__str__(reason)[:_LONGEST_REASON]
