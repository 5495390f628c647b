"""`WorkQueue`: jobs for a pool of workers, kept in a store.

Thread safety:

1. The state of a queue's jobs is in the store, in their metadata (``places.py``). Several `WorkQueue` objects
   with one name on one store are one queue, except for being closed.
2. Each change of a job is one commit, on the condition that the job still has the revision that was read. A
   change that an exception interrupts is either done or not done.
3. Closing sets its flags first and wakes the waiters then; flags are never cleared.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from latchstore.contract.arguments import (
    advising,
    check_callable,
    check_function,
    checked_count,
    checked_key,
    checked_timeout,
    describe,
    exact_integer,
)
from latchstore.contract.codec import Codec, V, checked_codec, encoded
from latchstore.contract.errors import (
    JobExistsError,
    QueueClosedError,
    RevisionMismatchError,
    TransactionError,
    WaitTimeoutError,
    WatchClosedError,
)
from latchstore.contract.ranges import Prefix
from latchstore.delivery.waiting import clock as waiting_clock
from latchstore.engine.first_entry import clock_of, clock_offset_of
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.queue import places
from latchstore.queue.claiming import Claims
from latchstore.queue.dead_letter import DeadLetter
from latchstore.queue.job import Job
from latchstore.queue.pool import Pool, Worked
from latchstore.queue.settings import (
    Settings,
    checked_delay,
    checked_lease,
    exponential_backoff,
    key_for,
    seconds_since,
)

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

#: Default seconds of a lease.
_LEASE = 60

_WHEN_THERE = ("refuse", "keep", "replace")


class WorkQueue(Generic[V]):
    """Jobs for a pool of workers, stored as entries of a store.

    A worker claims the first ready job, first in first out within a priority, and holds it for the time of a
    lease. `Job.ack` ends the job. It is tried again if the worker requests that, if its block raises an
    exception, or if the lease ends, as the worker may have died. After `max_attempts` it becomes a dead
    letter. So a job runs once while leases last, and at least once otherwise: keep jobs shorter than their
    lease, or call `Job.extend`.

    A put inside a transaction of the store is part of the transaction: the job is committed together with the
    data that it concerns, or neither is.

    Parameters
    ----------
    store : DictMemoryStore, SqliteStore or RedisStore
        The store of the jobs. It gets an index for finding the first job, so a queue cannot be made inside a
        transaction. Queues with one name are one queue for all processes on a `SqliteStore`, and for all
        machines on a `RedisStore`.
    name : str
        Name of the queue, without a slash. A job's key in the store is the name, a slash, and the job's key.
    codec : str or Codec
        Codec of the payloads: ``"json"``, ``"msgpack"``, ``"pickle"``, ``"raw"``, or your own. With pickle,
        claiming a job can run arbitrary code of anyone who can write to the store.
    max_attempts : int
        Number of claims after which a failing job becomes a dead letter.
    backoff : callable, optional
        Called with the number of attempts, returns the seconds before the next one. By default about 1, 2, 4
        and so on up to 600, each reduced by a random part.
    clock : callable, optional
        Returns seconds since the epoch, for delays and leases. By default ``time.time``, looked up at each
        call, or with a `RedisStore` the clock of the server, which all machines share. Timeouts do not use
        it.

    Attributes
    ----------
    store : DictMemoryStore, SqliteStore or RedisStore
    name : str

    Notes
    -----
    Several queues of one name on one store share their jobs. Listeners and watches of the store see jobs like
    all entries: ``store.watch(f"{name}/*")`` returns each step of each job, and ``queue.place`` in the
    metadata has its state. Jobs are saved and loaded with the store, with their leases. A bounded `Cache` on
    the same store would evict jobs: give it a store of its own.

    Names of metadata items that begin with ``queue.`` are reserved for the queue: ``queue.place``,
    ``queue.attempts`` and ``queue.reason``, the reason of the last failure.

    Thread safety
    -------------
    Any number of threads may put, claim and close. Several `WorkQueue` objects of one name on one store
    are one queue, also in different processes of a `SqliteStore` or `RedisStore`.

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager, WorkQueue
    >>> queue = WorkQueue(DictMemoryStore(EventManager()), "emails")
    >>> key = queue.put({"to": "anna"})
    >>> with queue.claim(timeout=0) as job:
    ...     print(job.payload, job.attempts)
    {'to': 'anna'} 1
    >>> queue.stats()["waiting"]
    0
    """

    @advising
    def __init__(
        self,
        store: TransactionalStore,
        name: str,
        *,
        codec: str | Codec[V] = "json",
        max_attempts: int = 5,
        backoff: Callable[[int], float] = exponential_backoff,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if not isinstance(store, TransactionalStore):
            raise TypeError(
                f"store must be a DictMemoryStore, a SqliteStore or a RedisStore, got {describe(store)}"
            )
        name = checked_key(name, "name")
        if not name or "/" in name:
            raise ValueError(f"name must be a non-empty string without a slash, got {name!r}")
        check_callable(backoff, "backoff")
        if clock is not None:
            check_callable(clock, "clock")
        attempts = checked_count(max_attempts, "max_attempts", 1)
        self._settings = Settings(
            store,
            name,
            checked_codec(codec),
            attempts,
            backoff,
            clock_of(store) if clock is None else clock,
            clock_offset_of(store),
            clock is None,
        )
        self._claims = Claims(self._settings)
        self._closed = False
        self._is_immediate = False
        self.store: TransactionalStore = store
        self.name: str = name

    # -- putting ----------------------------------------------------------------------------------

    def put(
        self,
        payload: V,
        *,
        key: str | None = None,
        priority: int = 0,
        delay: Seconds = 0,
        metadata: Mapping[str, Any] | None = None,
        if_exists: str = "refuse",
    ) -> str:
        """Put a job at the end of the queue; inside a transaction of this thread, as part of it.

        Parameters
        ----------
        payload : object
            Data of the job; the queue's codec encodes it.
        key : str, optional
            Key of the job in its queue, unique there; by default a new one. Use it to prevent a second job
            for the same purpose.
        priority : int
            Jobs of a higher priority are claimed first.
        delay : Seconds
            Seconds before it can be claimed.
        metadata : mapping, optional
            Metadata items of the job's entry, for queries and for the worker.
        if_exists : str
            What to do if the queue has a job of that key, dead letters included: ``"refuse"`` raises
            JobExistsError, ``"keep"`` keeps that job and drops this one, ``"replace"`` replaces that job by
            this one; a worker that has claimed the old job cannot end it then.

        Returns
        -------
        key : str

        Raises
        ------
        JobExistsError
            If there is a job of that key, and `if_exists` is ``"refuse"``.
        CodecError
            If the payload cannot be encoded.
        QueueClosedError
            If the queue was closed.
        """
        if self._closed:
            raise QueueClosedError(f"queue {self.name!r} is closed, so it takes no more jobs")
        settings = self._settings
        if if_exists not in _WHEN_THERE:
            raise ValueError(
                f"if_exists must be one of {', '.join(map(repr, _WHEN_THERE))}, got {if_exists!r}"
            )
        rank = places.rank_of(_checked_priority(priority), number := settings.next_number())
        pause = checked_delay(delay, "delay")
        items = places.checked_items(metadata)
        key = key_for(number) if key is None else _checked_job_key(key)
        full_key = settings.key_of(key)
        data = encoded(settings.codec, key, payload, self.name)
        if pause:
            items[places.PLACE] = places.delayed(self.name, settings.clock() + pause, rank)
        else:
            items[places.PLACE] = places.ready(self.name, rank)
        self._put(key, full_key, (data, items), if_exists)
        return key

    def _put(self, key: str, full_key: str, value: tuple[bytes, dict[str, Any]], if_exists: str) -> None:
        store, revision = self.store, 0
        while True:
            try:
                store.set(full_key, value, if_revision=revision)
                return
            except RevisionMismatchError:
                pass
            try:
                there = store.get(full_key)
            except KeyError:
                revision = 0
                continue
            place = places.place_of(there.metadata, self.name)
            if if_exists == "refuse" or place is None:
                raise JobExistsError(self.name, key, None if place is None else places.parsed(place).state)
            if if_exists == "keep":
                return
            assert there.revision is not None
            revision = there.revision

    # -- claiming ---------------------------------------------------------------------------------

    def claim(self, timeout: Seconds | None = None, lease: Seconds = _LEASE) -> Job[V] | None:
        """Claim the first ready job; wait for one if there is none.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds to wait; None for no limit, 0 for no wait.
        lease : Seconds
            Seconds for which no other worker can claim the job.

        Returns
        -------
        job : Job or None
            None after the timeout, and once the queue is closed and its last job has ended.

        Raises
        ------
        TransactionError
            If it may wait and this thread is in a transaction, which keeps others from putting a job. With
            ``timeout=0`` the claim is part of the transaction.
        StoreClosedError
            If the store is closed.
        """
        # hot path: the default needs no check.
        held = 60.0 if lease is _LEASE else checked_lease(lease)
        if timeout == 0 and type(timeout) is int:
            return self._claims.attempt(held)
        return self._claims.wait(held, checked_timeout(timeout), self._is_over)

    def _is_over(self) -> bool:
        return self._closed and (self._is_immediate or self._claims.is_empty())

    def __iter__(self) -> Iterator[Job[V]]:
        """Claim jobs, each for 60 seconds, until the queue is closed and its last job has ended."""
        while not self._is_immediate and (job := self.claim()) is not None:
            yield job

    def run(
        self,
        function: Callable[[Job[V]], object],
        *,
        threads: int = 8,
        lease: Seconds = _LEASE,
        until_empty: bool = True,
        progress: bool | None = None,
    ) -> Worked:
        """Call a function with each job, in several threads.

        A job whose call returns is acknowledged. If the call raises an exception, the exception is logged,
        and the job is tried again after a pause, or becomes a dead letter. A thread that dies is replaced. On
        Ctrl-C, each thread finishes its current job and begins no other; then KeyboardInterrupt is raised. A
        second Ctrl-C does not wait for them.

        Parameters
        ----------
        function : callable
            Called with a `Job`, with no lock held.
        threads : int
        lease : Seconds
            As for `claim`.
        until_empty : bool
            Whether to return when only dead letters are left, and no job waits for another attempt. Otherwise
            it returns when the queue is closed and empty.
        progress : bool, optional
            Whether to show a progress bar (tqdm). By default, if standard error is a terminal and tqdm is
            installed.

        Returns
        -------
        worked : Worked
            How many jobs these threads have acknowledged, had tried again, made dead letters, and lost the
            lease of.

        Raises
        ------
        ImportError
            If `progress` is true and tqdm is not installed.
        TransactionError
            If this thread is in a transaction.
        """
        check_function(function, "function", "asyncio.run in a plain function")
        count = checked_count(threads, "threads", 1)
        self._refuse_in_transaction("run")

        def is_over() -> bool:
            return self._is_over() or (until_empty and self._claims.is_empty())

        pool = Pool(self._claims, function, checked_lease(lease), is_over, self.name)
        return pool.run(count, self._unfinished, progress)

    # -- closing and waiting ----------------------------------------------------------------------

    def close(self, immediate: bool = False) -> None:
        """Close the queue for new jobs; closing twice is harmless.

        Workers continue until only dead letters are left; then iterations end, and `claim` returns None.
        Other queue objects with the same name are not closed.

        Parameters
        ----------
        immediate : bool
            Whether iterations and waiting claims end at once. Remaining jobs stay in the store.
        """
        self._claims.drainers["closed"] = None
        self._closed = True
        self._is_immediate = self._is_immediate or bool(immediate)
        self._claims.wake_all()

    @property
    def closed(self) -> bool:
        """Whether the queue is closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the queue; immediately if the block raises an exception."""
        self.close(immediate=kind is not None)

    def join(self, timeout: Seconds | None = None) -> None:
        """Wait until only dead letters are left.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds; None for no limit.

        Raises
        ------
        WaitTimeoutError
            If jobs are left after the timeout; the error has their number.
        TransactionError
            If this thread is in a transaction.
        WatchClosedError
            If the store is closed meanwhile.
        """
        seconds = checked_timeout(timeout)
        self._refuse_in_transaction("join")
        begun = waiting_clock()
        while (last := self._claims.last_unfinished()) is not None:
            with self.store.watch(glob.escape(last), max_buffer=1) as changes:
                if not self._is_unfinished(last):
                    continue
                left = None if seconds is None else max(0.0, seconds - (waiting_clock() - begun))
                try:
                    changes.get(left)
                except WaitTimeoutError:
                    raise WaitTimeoutError(
                        f"{self._unfinished()} jobs of queue {self.name!r} are left after {seconds or 0:g} s"
                    ) from None
                except WatchClosedError:
                    raise WatchClosedError(
                        f"the store was closed while join() waited for the jobs of queue {self.name!r}"
                    ) from None

    def _is_unfinished(self, key: str) -> bool:
        try:
            place = places.place_of(self.store.get_metadata(key), self.name)
        except KeyError:
            return False
        return place is not None and places.parsed(place).state != "dead"

    def _refuse_in_transaction(self, operation: str) -> None:
        transaction = self.store.current_transaction()
        if transaction is not None:
            raise TransactionError(f"{operation}() cannot be called inside {transaction!r}")

    # -- looking ----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the number of jobs by state, at one instant.

        It takes time in proportion to the number of keys of the store; with an ordered index
        (``store.add_index(Ordered("queue.place"))``), in proportion to the jobs of the queue.

        Returns
        -------
        stats : dict
            ``waiting`` (ready to be claimed), ``delayed``, ``leased``, ``dead`` (dead letters), and
            ``oldest_waiting`` (seconds since the oldest waiting job was put, or None). A job whose delay or
            lease has ended counts as waiting from the next claim on.
        """
        stats: dict[str, Any] = dict.fromkeys(places.COUNTED.values(), 0)
        oldest: int | None = None
        for place in self._places():
            stats[places.COUNTED[place.state]] += 1
            if place.state == "ready" and (oldest is None or place.number < oldest):
                oldest = place.number
        age = None if oldest is None else seconds_since(oldest, self._settings.clock())
        return {**stats, "oldest_waiting": age}

    def _unfinished(self) -> int:
        return sum(place.state != "dead" for place in self._places())

    def _places(self) -> Iterator[places.Place]:
        found = self.store.query((places.PLACE,), where={places.PLACE: Prefix(f"{self.name}/")})
        return (places.parsed(items[places.PLACE]) for _, items in found)

    def dead_letters(self) -> Iterator[DeadLetter[V]]:
        """Return the jobs that have failed for good, earliest failure first.

        It takes as much time as `stats`; with the index, time in proportion to the dead letters.
        """
        found = self.store.query_keys(
            order_by=places.PLACE, where={places.PLACE: Prefix(f"{self.name}/dead/")}
        )
        for key in found:
            try:
                value = self.store.get(key)
            except KeyError:
                continue  # discarded meanwhile
            place = places.place_of(value.metadata, self.name)
            if place is not None and places.parsed(place).state == "dead":
                yield DeadLetter(self._settings, self._settings.job_key_of(key), value)

    def requeue_all(self) -> int:
        """Put all dead letters at the end of the queue again; return how many."""
        return sum(letter.requeue() for letter in self.dead_letters())

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<{state}work queue {self.name!r} in {self.store!r}>"


def _checked_job_key(key: str) -> str:
    key = checked_key(key)
    if not key:
        raise ValueError(f"key must not be empty, got {key!r}")
    return key


def _checked_priority(priority: int) -> int:
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority must be an int, got {describe(priority)}")
    priority = exact_integer(priority)
    if abs(priority) > places.HIGHEST_PRIORITY:
        raise ValueError(f"priority must be from -10**9 to 10**9, got {priority}")
    return priority
