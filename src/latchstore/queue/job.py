"""A claimed job, and the ways it ends.

Thread safety:

1. Two items of the job's metadata identify a claim: the rank, which is unique, and the number of attempts,
   which each claim increments. Each change of a job is one commit, on the condition that place and attempts
   are those that this worker has written. If they are not, the job is read: with another rank or another
   number of attempts it is another worker's, or another job; otherwise only its place has changed, and the
   commit is made on the condition of the new place. So if two workers both hold a job, one of them is
   refused, and other changes of the metadata by users do not lose the lease.
2. An expired lease is lost only when the job is claimed again: a worker that ends the job before that has
   done the work of that attempt, and no other worker has.
3. No lock is held; codec, clock and backoff are called without any lock.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from latchstore.contract.arguments import describe, describe_error
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

#: Exceptions that concern the worker's thread, not the job.
_INTERRUPTS = (KeyboardInterrupt, GeneratorExit)

_DELETE = Delete()

#: The payload before it has been decoded.
_UNKNOWN: Any = object()

#: The number of characters of a reason that are stored.
_LONGEST_REASON = 1_000


class Job(Generic[V]):
    """A job that a worker has claimed; `WorkQueue.claim` makes it.

    As a context manager, the job ends with its block: it is acknowledged if the block succeeds. If the block
    raises an exception, the exception propagates, and the job is tried again after a pause, or becomes a dead
    letter after the last attempt. An interrupt (KeyboardInterrupt, GeneratorExit) releases it at once.

    Inside a transaction of the store, the end of a job is part of that transaction: `ack` is committed
    together with the transaction's writes, or neither is.

    Attributes
    ----------
    attempts : int
        Number of claims, this one included.
    leased_until : float
        End of the lease, in seconds since the epoch.

    Thread safety
    -------------
    Any thread may end or extend a job, but it is ended once: later calls raise `LeaseLostError`.
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
        # The entry before the claim.
        self._entry = entry
        self._place: str = items[places.PLACE]
        self._payload: V = _UNKNOWN
        self._metadata: dict[str, Any] | None = None
        # How this claim has ended; None until then.
        self._outcome: str | None = None
        self.attempts: int = items[places.ATTEMPTS]
        self.leased_until: float = until

    @property
    def key(self) -> str:
        """Key in the queue; its key in the store is the name of the queue, a slash, and this key."""
        return self._settings.job_key_of(self._full_key)

    @property
    def _rank(self) -> str:
        return places.rank_in(self._place)

    @property
    def payload(self) -> V:
        """The payload; decoded at the first access.

        Raises
        ------
        CodecError
            If it cannot be decoded; in the job's block it counts as an exception of the block.
        """
        if self._payload is _UNKNOWN:
            settings = self._settings
            self._payload = decoded(settings.codec, self.key, self._entry.content, settings.name)
        return self._payload

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata given to `WorkQueue.put`, or written since."""
        if self._metadata is None:
            self._metadata = places.own_items(self._entry.isolated_metadata())
        return self._metadata

    @property
    def priority(self) -> int:
        """The priority given to `WorkQueue.put`."""
        return places.Place("", "", 0, self._rank).priority

    @property
    def outcome(self) -> str | None:
        """How the worker ended it, ``"acked"``, ``"retried"``, ``"failed"`` or ``"released"``, or None."""
        return self._outcome

    # -- how a job ends ---------------------------------------------------------------------------

    def ack(self) -> None:
        """Acknowledge the job: it is done, and is removed from the store.

        Raises
        ------
        LeaseLostError
            If the lease has expired and another worker has claimed the job since, or if the job was ended,
            replaced or deleted before.
        """
        self._commit("acked", _DELETE)

    def retry(self, delay: Seconds | None = None, reason: str = "") -> bool:
        """Let the job be tried again; after the last attempt it becomes a dead letter.

        Parameters
        ----------
        delay : Seconds, optional
            Seconds before it can be claimed; by default the result of the queue's ``backoff``. The job keeps
            its position among those of its priority.
        reason : str
            Reason for the failure of this attempt.

        Returns
        -------
        again : bool
            False if it became a dead letter.

        Raises
        ------
        LeaseLostError
            As for `ack`.
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
            Reason for the failure; the first 1,000 characters are stored.

        Raises
        ------
        LeaseLostError
            As for `ack`.
        """
        settings = self._settings
        place = places.dead(settings.name, settings.clock(), self._rank)
        self._put_items("failed", {places.PLACE: place, places.REASON: _checked_reason(reason)})

    def release(self) -> None:
        """Make the job claimable at once, without counting the attempts.

        Raises
        ------
        LeaseLostError
            As for `ack`.
        """
        self._back_to_queue("released", 0.0, "")

    def extend(self, lease: Seconds = 60) -> None:
        """Extend the lease: it ends this many seconds from now.

        Parameters
        ----------
        lease : Seconds

        Raises
        ------
        LeaseLostError
            As for `ack`.
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
        """Commit a change of the job on the condition that this worker still holds it: rule 1."""
        if self._outcome is not None:
            raise self._lost(f"this worker has {self._outcome} it already")
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
        """Return the place of the job, if this worker still holds it."""
        settings = self._settings
        try:
            metadata = settings.store.get_metadata(self._full_key)
        except KeyError:
            raise self._lost(
                "it is not in the store any more: another worker acknowledged it, or it was deleted"
            ) from None
        place = places.place_of(metadata, settings.name)
        if place is None or places.rank_in(place) != self._rank:
            raise self._lost("it was replaced or requeued, so its key belongs to another job now")
        if metadata.get(places.ATTEMPTS) != self.attempts:
            raise self._lost(
                "its lease expired, and another worker has claimed it; use a longer lease, or call extend() "
                "while the work goes on"
            )
        if places.parsed(place).state == "dead":
            raise self._lost("its lease expired after the last attempt, so it is a dead letter")
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
            logger.info("%s; its block raised %s", lost, describe_error(error))

    def end_after(self, error: BaseException) -> None:
        """End the job as its block does after an exception; does nothing if the job has ended.

        Raises
        ------
        LeaseLostError
            As for `ack`.
        """
        if self._outcome is not None:
            return
        if isinstance(error, _INTERRUPTS):
            self.release()
        elif isinstance(error, Exception):
            self.retry(reason=describe_error(error))
        else:
            self.retry(0, describe_error(error))

    def __repr__(self) -> str:
        state = self._outcome or "leased"
        return f"<job {self.key!r} of queue {self._settings.name!r}, attempt {self.attempts}, {state}>"


def _checked_reason(reason: str) -> str:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {describe(reason)}")
    return str.__str__(reason)[:_LONGEST_REASON]
