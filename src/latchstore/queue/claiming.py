"""Finds the next job, leases it, and waits for one.

Thread safety:

1. A claim is one commit, which finds the first ready job at its own instant and writes the lease
   (``engine/first_entry.py``): the engine has the first of the ready and of the due jobs. It commits nothing
   if the time of a due job has come: such jobs are made ready first, each by a commit of its own. So jobs are
   claimed in the order of the queue, without a lock of the queue, and a worker that dies, or a process that
   is killed, blocks nobody.
2. Inside a transaction a claim queries the first job, reads it, and writes the lease on the condition that
   the job has not changed since. If it has, the claim starts again; each time another worker has got a job.
3. A waiter adds its bell to the signal's waiters first, then tries to claim, and then sleeps
   (``delivery/commit_signal.py``), at most until the next delayed or leased job becomes ready. A commit that
   makes jobs ready wakes one sleeper for each; a commit that delays a job wakes all, as each must compute
   anew how long to sleep.
4. A worker that was woken and then interrupted by an exception wakes another one in its place, if it can;
   otherwise others find the job at their next periodic check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from latchstore.contract.codec import V
from latchstore.contract.errors import RevisionMismatchError, StoreError, TransactionError
from latchstore.contract.ranges import Between, Prefix
from latchstore.contract.values import Change, Entry, merged_metadata
from latchstore.delivery.commit_signal import LOOK_AGAIN, CommitSignal
from latchstore.delivery.waiting import clock
from latchstore.engine.first_entry import (
    FirstEntry,
    InTheWayError,
    Leasing,
    NothingFoundError,
    entry_of,
    first_values,
)
from latchstore.engine.first_values import FirstValues, Item
from latchstore.engine.transactional_store import follow_commits
from latchstore.queue import places
from latchstore.queue.job import Job
from latchstore.queue.settings import Settings

#: How often a claim makes due jobs ready before it falls back to a query.
_TRIES = 3

#: More than the number of sleepers.
_ALL = 1 << 30


class _Interest:
    """Decides which commits wake the waiters of a queue; called under the table lock.

    Attributes
    ----------
    drainers : dict
        Waiters that each ended job wakes: those of a closed queue, and pools that work until it is empty.
        Changed by single operations of the dict.
    """

    __slots__ = ("_begins", "_name", "_ready_begins", "drainers")

    def __init__(self, name: str) -> None:
        self.drainers: dict[object, None] = {}
        self._name = name
        self._begins = f"{name}/"
        self._ready_begins = f"{name}/ready/"

    def sleepers_for(self, change: Change) -> int:
        """Return the number of sleepers that a change wakes: rule 3. Runs builtin code only."""
        key, _, new = change
        if not key.startswith(self._begins):
            return 0
        place = places.place_of(new, self._name)
        if place is None:
            return _ALL if self.drainers else 0
        if place.startswith(self._ready_begins):
            return 1
        if "/delayed/" in place:
            return _ALL
        return _ALL if self.drainers and "/dead/" in place else 0


class _Claim(FirstEntry, Generic[V]):
    """A claim; its commit finds the job.

    Attributes
    ----------
    key : str or None
        Of the job; None before the commit has found it.
    entry : Entry
        The job's entry before the claim.
    items : dict
        The metadata items that the claim writes.
    """

    __slots__ = ("_now", "_place_begins", "_seconds", "_settings", "_until", "entry", "items", "key")

    entry: Entry
    items: dict[str, Any]
    key: str | None

    def __init__(self, settings: Settings[V], values: FirstValues, now: float | None, lease: float) -> None:
        # hot path: the base class's constructor is not called.
        self._store, self._values, self._found, self.key = settings.store, values, None, None
        self.look_back = None
        self._settings = settings
        self._seconds, self._now = lease, now
        if now is not None:
            self._until = until = now + lease
            self._place_begins = places.leased(settings.name, until, "")

    def lease(self, entry: Entry) -> Entry:
        """Record the job's entry; return the metadata items that the claim writes."""
        attempts = entry[places.ATTEMPTS] + 1 if places.ATTEMPTS in entry else 1
        place: str = entry[places.PLACE]
        self.entry = entry
        self.items = items = Entry()
        items[places.PLACE] = self._place_begins + place[place.rindex("/") + 1 :]
        items[places.ATTEMPTS] = attempts
        return items

    def revise(self, key: str, current: Entry | None, revision: int, now: float) -> Entry:
        if current is None:
            raise KeyError(key)
        new = merged_metadata(current, self.lease(current))
        self.key = key
        return new.revise(key, current, revision, now)

    @property
    def leasing(self) -> Leasing:
        ready, due = places.ready(self._settings.name, ""), places.due(self._settings.name)
        return Leasing(places.PLACE, places.ATTEMPTS, ready, due, self._seconds, self._now)

    def made(self, key: str, old: Entry | None, new: Entry | None) -> None:
        super().made(key, old, new)
        assert old is not None, "the store has claimed a job that did not exist"
        assert new is not None, "the store has removed a job instead of claiming it"
        self.entry = old
        self.items = {name: new[name] for name in (places.PLACE, places.ATTEMPTS)}
        self._until = places.parsed(new[places.PLACE]).time / 1_000_000
        self.key = key

    def job(self) -> Job[V]:
        """Return the claimed job."""
        assert self.key is not None, "the store has committed a claim without the edit that chooses its job"
        return Job(self._settings, self.key, self.entry, self.items, self._until)

    def give_back(self) -> None:
        """Release the job if a failed call has claimed one."""
        try:
            if self.key is None and self.look_back is not None:
                self.look_back(self)
            if self.key is not None:
                self.job().release()
        except (StoreError, OSError):
            return  # not claimed, or ready again when its lease is over


class Claims(Generic[V]):
    """Finds and leases the jobs of one queue, and waits for them.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    drainers : dict
        Waiters for the end of the last job.
    """

    def __init__(self, settings: Settings[V]) -> None:
        self._settings = settings
        name = settings.name
        self._ready = {places.PLACE: Prefix(f"{name}/ready/")}
        self._due = {places.PLACE: Prefix(f"{name}/due/")}
        self._due_begins = f"{name}/due/"
        self._ready_begins = f"{name}/ready/"
        both = (self._due_begins, self._ready_begins)
        self._values = first_values(settings.store, name, places.PLACE, both)
        self._is_found_there = self._values.is_found_by_commit
        # The places of due and ready jobs are adjacent; "0" follows "/".
        self._unfinished = {places.PLACE: Between(f"{name}/due/", f"{name}/ready0")}
        self._interest = _Interest(name)
        self.drainers: dict[object, None] = self._interest.drainers
        self._signal = self._new_signal()
        # The signal that the store notifies of its commits.
        self._followed: CommitSignal | None = None

    # -- at once ----------------------------------------------------------------------------------

    def attempt(self, lease: float) -> Job[V] | None:
        """Claim the first ready job; None if there is none."""
        settings, due_begins, is_found_there = self._settings, self._due_begins, self._is_found_there
        for _ in range(_TRIES):
            now = None if is_found_there and settings.goes_by_store else settings.clock()
            claim = _Claim(settings, self._values, now, lease)
            try:
                if now is None or is_found_there:
                    claim.commit_there("claim")
                else:
                    # The places of all jobs that are due now come before this one: "0" follows "/".
                    until_now = f"{places.time_of(due_begins, now)}0"
                    claim.commit(self._ready_begins, (due_begins, until_now), "claim")
                return claim.job()
            except NothingFoundError:
                return None
            except InTheWayError:
                self.promote()
                continue
            except StoreError:
                raise  # refused: nothing was committed
            except BaseException:
                claim.give_back()
                raise
        return self._attempt_by_query(lease)

    def _attempt_by_query(self, lease: float) -> Job[V] | None:
        settings = self._settings
        self.promote()
        while True:
            first = self._first_by_query(self._ready)
            if first is None:
                return None
            claim = _Claim(settings, self._values, settings.clock(), lease)
            claim.key, entry = first
            if self._update(claim.key, claim.lease(entry), entry):
                return claim.job()

    def _first_by_query(self, where: dict[str, Any]) -> tuple[str, Entry] | None:
        """Return the first job of a range, at the instant of a query of this thread."""
        store = self._settings.store
        while True:
            first = next(store.query((places.PLACE,), order_by=places.PLACE, limit=1, where=where), None)
            if first is None:
                return None
            entry = self._unchanged(*first)
            if entry is not None:
                return first[0], entry

    def _unchanged(self, key: str, items: dict[str, Any]) -> Entry | None:
        """Return the entry of a found job; None if the job was claimed or moved since."""
        try:
            entry: Entry = entry_of(self._settings.store, key)
        except KeyError:
            return None
        return entry if all(entry.get(name) == item for name, item in items.items()) else None

    def _update(self, key: str, items: dict[str, Any], entry: Entry) -> bool:
        """Set metadata items of a job on the condition that it has not changed; return whether it had not."""
        try:
            self._settings.store.update_metadata(key, items, if_revision=entry.revision)
        except (RevisionMismatchError, KeyError):
            return False
        return True

    def promote(self) -> int | None:
        """Make jobs ready whose delay or lease has ended.

        Returns
        -------
        due : int or None
            The time at which the next one becomes ready, in microseconds since the epoch.
        """
        settings = self._settings
        now = places.microseconds(settings.clock())
        while (first := self._first_due()) is not None:
            text, key = first
            place = places.parsed(text)
            if place.time > now:
                return place.time
            entry = self._unchanged(key, {places.PLACE: text})
            if entry is not None:
                self._update(key, self._items_when_due(place, entry.get(places.ATTEMPTS, 0)), entry)
        return None

    def _first_due(self) -> Item | None:
        """Return the place of the first due job, and its key, as this thread sees it."""
        if self._settings.store.current_transaction() is None:
            return self._values.look((self._due_begins,))[0]
        first = self._first_by_query(self._due)
        return None if first is None else (first[1][places.PLACE], first[0])

    def _items_when_due(self, place: places.Place, attempts: int) -> dict[str, Any]:
        settings = self._settings
        if place.state == "leased" and attempts >= settings.max_attempts:
            return {
                places.PLACE: places.dead(settings.name, settings.clock(), place.rank),
                places.REASON: f"the lease of attempt {attempts} of {settings.max_attempts} expired",
            }
        return {places.PLACE: places.ready(settings.name, place.rank)}

    def is_empty(self) -> bool:
        """Return whether only dead letters are left."""
        return self._values.look((self._due_begins, self._ready_begins)) == [None, None]

    def last_unfinished(self) -> str | None:
        """Return the store's key of the unfinished job that would be claimed last; None if there is none."""
        if self.is_empty():
            return None
        keys = self._settings.store.query_keys(
            order_by=places.PLACE, descending=True, limit=1, where=self._unfinished
        )
        return next(keys, None)

    # -- waiting ----------------------------------------------------------------------------------

    def wait(self, lease: float, timeout: float | None, is_over: Callable[[], object]) -> Job[V] | None:
        """Claim a job; wait until there is one.

        Parameters
        ----------
        lease : float
        timeout : float or None
            Seconds; None for no limit.
        is_over : callable
            Returns whether to stop waiting.

        Returns
        -------
        job : Job or None
            None after the timeout, or when `is_over` returns true.

        Raises
        ------
        TransactionError
            If it may wait, and this thread is in a transaction.
        StoreClosedError
            If the store is closed.
        """
        if timeout != 0:
            self._refuse_in_transaction()
        begun = clock()
        job = self.attempt(lease)
        left = timeout
        while job is None and left != 0 and not is_over():
            signal, due = self._following(), self.promote()

            def look() -> bool:
                nonlocal job
                job = self.attempt(lease)
                if job is not None or signal.ended or is_over():  # noqa: B023 (called here)
                    return True
                now_due = self.promote()
                return now_due is not None and (due is None or now_due < due)  # noqa: B023

            try:
                signal.waiters.wait(look, self._seconds_until(due, left), yields=0, look_again=LOOK_AGAIN)
            except BaseException:
                signal.waiters.ring()  # rule 4
                if job is not None:
                    job.release()
                raise
            if timeout is not None:
                left = max(0.0, timeout - (clock() - begun))
        return job

    def wake_all(self) -> None:
        """Make all waiters look again."""
        self._signal.waiters.ring_all()

    def _refuse_in_transaction(self) -> None:
        transaction = self._settings.store.current_transaction()
        if transaction is not None:
            raise TransactionError(
                f"claim() cannot wait inside {transaction!r}, as it keeps others from putting a job; "
                "use timeout=0 to claim only what is ready"
            )

    def _seconds_until(self, due: int | None, left: float | None) -> float:
        """Return the maximum seconds to sleep; negative for no limit."""
        if due is None:
            return -1.0 if left is None else left
        until_due = max(0.0, due / 1_000_000 - self._settings.clock()) + 0.000_001
        return until_due if left is None else min(left, until_due)

    def _following(self) -> CommitSignal:
        """Return the signal; the store notifies it of commits from the first wait on."""
        signal = self._signal
        if signal.ended:
            signal = self._signal = self._new_signal()
        if self._followed is not signal:
            follow_commits(self._settings.store, signal)
            self._followed = signal
        return signal

    def _new_signal(self) -> CommitSignal:
        signal = CommitSignal(self._interest.sleepers_for)
        signal.belong_to(self)
        return signal
