"""`WorkQueue`: jobs in a store, for a pool of workers.

Thread safety:

1. All that a queue knows of its jobs is in the store, in their metadata (``places.py``). Several queues of
   one name, on one store, are one queue, apart from being closed.
2. Each change of a job is one commit, on the condition of the revision that was looked at. What an exception
   strikes is done or not done.
3. The flags of closing are only ever set, in this order: first the flag, then those who wait are woken.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from latchstore.contract.arguments import (
    check_callable,
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

#: Seconds that a worker has a job for.
_LEASE = 60

_WHEN_THERE = ("refuse", "keep", "replace")

#: What `WorkQueue.stats` calls the states.
_COUNTED = {"ready": "waiting", "delayed": "delayed", "leased": "leased", "dead": "dead"}


class WorkQueue(Generic[V]):
    """Jobs for a pool of workers, which are entries of a store.

    A worker claims the first job that is ready, first in first out within a priority, and has it for the time
    of a lease. It ends the job by `Job.ack`, or the job is tried again: when the worker asks for that, when
    its block is left by an exception, and when the lease runs out, as the worker may have died. After
    `max_attempts` it becomes a dead letter. So a job is done once while leases hold, and at least once if
    they do not: let a job take less than its lease, or `Job.extend` it.

    What is put inside a transaction of the store is part of that: the job is there if the data that it is
    about is.

    Parameters
    ----------
    store : DictMemoryStore, SqliteStore or RedisStore
        Where the jobs are. It gets an index by which the first job is found, so a queue is not made inside a
        transaction. Queues of one name on a `SqliteStore` are one queue of all processes, and on a
        `RedisStore` of all machines.
    name : str
        Of the queue; without a slash. The key of a job in the store is the name, a slash, and the job's key.
    codec : str or Codec
        How payloads become bytes: ``"json"``, ``"msgpack"``, ``"pickle"``, ``"raw"``, or one's own. With
        pickle, to claim a job of a file that somebody else has written runs what they please.
    max_attempts : int
        How often a job is claimed before it becomes a dead letter.
    backoff : callable, optional
        Called with the number of attempts, returns the seconds before the next one. By default about 1, 2, 4
        and so on, 600 at the most, of which a random part is taken away.
    clock : callable, optional
        Returns seconds since the epoch, by which delays and leases are reckoned. If it is not given, that is
        ``time.time``, looked up at each call, and with a `RedisStore` the clock of the server: one for all
        machines, whatever their own ones show. Timeouts do not depend on it.

    Attributes
    ----------
    store : DictMemoryStore, SqliteStore or RedisStore
    name : str

    Notes
    -----
    Several queues of one name on one store share their jobs. Listeners and watches of the store see jobs as
    they see all entries: ``store.watch(f"{name}/*")`` gives each step of each job, ``queue.place`` in the
    metadata tells its state. Jobs are saved and loaded with the store, with their leases. A bounded `Cache`
    on the same store would evict jobs: give it another one.

    Names of metadata items that begin with ``queue.`` are the queue's: ``queue.place``, ``queue.attempts``
    and ``queue.reason``, the reason of the last failure.

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
            raise ValueError(f"name must not be empty and have no slash, got {name!r}")
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
        """Put a job at the end of the line; inside a transaction of this thread, as a part of that.

        Parameters
        ----------
        payload : object
            What the job is about; the queue's codec makes bytes of it.
        key : str, optional
            Of the job in its queue, by which a second job about the same thing is kept out; by default a new
            one.
        priority : int
            Jobs of a higher one are claimed first.
        delay : Seconds
            Seconds before it can be claimed.
        metadata : mapping, optional
            Metadata items for the job's entry, to be found by queries and by the worker.
        if_exists : str
            What happens if the queue has a job of that key, dead letters included: ``"refuse"`` raises
            JobExistsError, ``"keep"`` leaves that job and drops this one, ``"replace"`` puts this one in its
            place; a worker that has claimed the old one cannot end it then.

        Returns
        -------
        key : str

        Raises
        ------
        JobExistsError
            If there is a job of that key, and it is to be refused.
        CodecError
            If the payload cannot be encoded.
        QueueClosedError
            If the queue was closed.
        """
        if self._closed:
            raise QueueClosedError(f"queue {self.name!r} was closed, and takes no more jobs")
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
        data = encoded(settings.codec, full_key, payload)
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
        """Claim the first job that is ready; wait for one if there is none.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds to wait; as long as it takes if None. 0 takes what there is.
        lease : Seconds
            Seconds for which no other worker gets the job.

        Returns
        -------
        job : Job or None
            None if there was none in time, and as soon as the queue is closed and its last job has ended.

        Raises
        ------
        TransactionError
            If it may wait and is called inside a transaction of this thread, which keeps others from putting
            a job. With ``timeout=0`` it is a part of the transaction.
        StoreClosedError
            If the store is closed.
        """
        # hot path: what is usual needs no check.
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
        """Work on jobs with some threads: call a function with each job.

        A job whose call returns is acknowledged. What the call raises is logged, and the job is tried again
        after a pause, or becomes a dead letter. A thread that dies is replaced. Ctrl-C has each thread end
        the job that it is at, and no other one is begun; then KeyboardInterrupt is raised. A second Ctrl-C
        does not wait for them.

        Parameters
        ----------
        function : callable
            Called with a `Job`, with no lock held.
        threads : int
        lease : Seconds
            As for `claim`.
        until_empty : bool
            Whether to return when no job is left but dead letters, those that wait for another attempt
            included. Otherwise when the queue is closed, and empty as well.
        progress : bool, optional
            Whether to show a progress bar, by tqdm. By default if standard error is a terminal and tqdm is
            installed.

        Returns
        -------
        worked : Worked
            How many jobs these threads have acknowledged, have had tried again, have made dead letters, and
            had lost the lease of.

        Raises
        ------
        ImportError
            If a progress bar is asked for, and tqdm is not installed.
        TransactionError
            If it is called inside a transaction of this thread.
        """
        check_callable(function, "function")
        count = checked_count(threads, "threads", 1)
        self._refuse_in_transaction("run")

        def is_over() -> bool:
            return self._is_over() or (until_empty and self._claims.is_empty())

        pool = Pool(self._claims, function, checked_lease(lease), is_over, self.name)
        return pool.run(count, self._unfinished, progress)

    # -- closing and waiting ----------------------------------------------------------------------

    def close(self, immediate: bool = False) -> None:
        """Take no more jobs; closing twice is harmless.

        Workers go on until no job is left but dead letters; then iterations end, and `claim` returns None.
        Other queues of the same name are not closed.

        Parameters
        ----------
        immediate : bool
            Whether iterations and waiting claims end at once. What is left stays in the store.
        """
        self._claims.drainers["closed"] = None
        self._closed = True
        self._is_immediate = self._is_immediate or bool(immediate)
        self._claims.wake_all()

    @property
    def closed(self) -> bool:
        """Whether the queue was closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the queue; at once if an exception leaves the block."""
        self.close(immediate=kind is not None)

    def join(self, timeout: Seconds | None = None) -> None:
        """Wait until no job is left but dead letters.

        Parameters
        ----------
        timeout : Seconds, optional
            Seconds; as long as it takes if None.

        Raises
        ------
        WaitTimeoutError
            If jobs are left then; it tells how many.
        TransactionError
            If it is called inside a transaction of this thread.
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
                        f"the store was closed while the jobs of queue {self.name!r} were waited for"
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
        """Return how many jobs there are, at one instant.

        It takes time in proportion to the keys of the store; with an ordered index, which
        ``store.add_index(Ordered("queue.place"))`` makes, to the jobs of the queue.

        Returns
        -------
        stats : dict
            ``waiting`` (ready to be claimed), ``delayed``, ``leased``, ``dead`` (dead letters), and
            ``oldest_waiting`` (the seconds since the first of the waiting ones was put, or None). A job whose
            delay or lease has just ended is counted as waiting from the next claim on.
        """
        stats: dict[str, Any] = dict.fromkeys(_COUNTED.values(), 0)
        oldest: int | None = None
        for place in self._places():
            stats[_COUNTED[place.state]] += 1
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
        """Return the jobs that have failed for good, those that failed first coming first.

        It takes the time that `stats` does; with the index in proportion to the dead letters.
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
        """Put all dead letters at the end of the line again; return how many there were."""
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
