"""The threads of `WorkQueue.run`.

Thread safety:

1. Each worker claims a job, works on it and ends it; it sees the effects of other workers in the store only.
   It writes counters of its own, which other threads read.
2. A worker's last step is to append itself to the pool's `ended`, by one call in C, and to ring the bell. The
   thread that runs the pool also checks every second for a worker that an exception interrupted before that.
3. `stopping` is set once; then workers that wait for a job are woken.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from latchstore.contract.codec import V
from latchstore.contract.errors import LeaseLostError
from latchstore.contract.extras import missing_extra
from latchstore.delivery.threads import DeliveryThread
from latchstore.delivery.waiting import Bell
from latchstore.queue.claiming import Claims
from latchstore.queue.job import Job

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds between two checks of the workers, and between updates of the progress bar.
_LOOK_AGAIN = 1.0
_DRAW_AGAIN = 0.1


class Worked(NamedTuple):
    """Counts of what the threads of a pool have done.

    Attributes
    ----------
    acked : int
        Jobs that were acknowledged.
    retried : int
        Failed attempts of jobs that are tried again.
    dead : int
        Jobs that became dead letters.
    lost : int
        Attempts whose lease was lost.
    """

    acked: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0


#: The counter of each outcome.
_COUNTED = {"acked": "acked", "retried": "retried", "released": "retried", "failed": "dead", None: "lost"}


class Pool(Generic[V]):
    """Threads that call a function with each job.

    Parameters
    ----------
    claims : Claims
    function : callable
    lease : float
    is_over : callable
        Returns whether no more jobs will come.
    name : str
        The queue's name, for the names of the threads and the progress bar.

    Attributes
    ----------
    stopping : bool
        Whether workers must not begin another job.
    ended : deque of Worker
    bell : Bell
        Rung when a worker has ended.
    """

    def __init__(
        self,
        claims: Claims[V],
        function: Callable[[Job[V]], object],
        lease: float,
        is_over: Callable[[], bool],
        name: str,
    ) -> None:
        self.stopping: bool = False
        self.ended: deque[Worker[V]] = deque()
        self.bell: Bell = Bell()
        self._claims = claims
        self._function = function
        self._lease = lease
        self._is_over = is_over
        self._name = name
        # All workers, including ended ones.
        self._workers: list[Worker[V]] = []
        self._running: list[Worker[V]] = []

    def run(self, threads: int, count_jobs: Callable[[], int], progress: bool | None) -> Worked:
        """Run workers until no more jobs come; return their counts.

        Parameters
        ----------
        threads : int
        count_jobs : callable
            Returns the number of jobs, for the progress bar.
        progress : bool or None
            Whether to show a progress bar; None: if one can be shown.
        """
        bar = _bar(self._name, count_jobs, progress)
        drainers = self._claims.drainers
        try:
            drainers[self] = None
            for _ in range(threads):
                self._start()
            self._look_after(bar)
        except BaseException:
            self.stopping = True
            self._claims.wake_all()
            self._look_after(bar)  # an exception here, a second Ctrl-C, ends the wait
            raise
        finally:
            drainers.pop(self, None)
            if bar is not None:
                bar.close()
        return self.worked

    @property
    def worked(self) -> Worked:
        """The counts so far."""
        return Worked(*map(sum, zip(*[worker.counts for worker in self._workers], strict=True)))

    def next_job(self) -> Job[V] | None:
        """Claim the next job for a worker; None if the worker must end."""
        return None if self.stopping else self._claims.wait(self._lease, None, self._is_to_end)

    def _is_to_end(self) -> bool:
        return self.stopping or self._is_over()

    def _start(self) -> None:
        worker = Worker(self, self._function, f"latchstore-queue-{self._name}-{len(self._workers)}")
        self._workers.append(worker)
        worker.start()
        self._running.append(worker)

    def _look_after(self, bar: Any) -> None:
        """Wait until all workers have ended; replace those that died, unless the pool is stopping."""
        while self._running:
            if self.bell.sleep(_LOOK_AGAIN if bar is None else _DRAW_AGAIN):
                while self.ended:
                    self._after_end(self.ended.popleft())
            else:
                for worker in [worker for worker in self._running if not worker.is_alive()]:
                    self._after_end(worker)
            if bar is not None:
                _draw(bar, self.worked)

    def _after_end(self, worker: Worker[V]) -> None:
        if worker not in self._running:
            return  # a periodic check has found it
        self._running.remove(worker)
        error = worker.error
        if worker.is_done or self.stopping:
            return
        if isinstance(error, Exception):
            raise error  # no job can be claimed, for example as the store was closed
        logger.warning("a worker of queue %r died and is replaced: %r", self._name, error)
        self._start()


class Worker(DeliveryThread, Generic[V]):
    """A thread that works on jobs.

    Attributes
    ----------
    counts : list of int
        In the order of the fields of `Worked`.
    is_done : bool
        Whether it ended because no more jobs come.
    error : BaseException or None
        Any other reason why it ended.
    """

    def __init__(self, pool: Pool[V], function: Callable[[Job[V]], object], name: str) -> None:
        super().__init__(self.run, name)  # its start returns even if an exception interrupts the thread
        self.counts: list[int] = [0] * len(Worked._fields)
        self.is_done: bool = False
        self.error: BaseException | None = None
        self._pool = pool
        self._function = function

    def run(self) -> None:
        """Work until no more jobs come."""
        try:
            self._work_to_the_end()
            self.is_done = True
        except BaseException as error:
            self.error = error
        finally:
            self._pool.ended.append(self)
            self._pool.bell.ring()

    def _work_to_the_end(self) -> None:
        while (job := self._pool.next_job()) is not None:
            self._work_on(job)

    def _work_on(self, job: Job[V]) -> None:
        try:
            with job:
                self._function(job)
        except Exception as error:
            if isinstance(error, LeaseLostError) and job.outcome is None:
                logger.warning("%s", error)
            else:
                logger.exception("%r failed", job)
        self._count(_COUNTED[job.outcome])

    def _count(self, what: str) -> None:
        self.counts[Worked._fields.index(what)] += 1


def _bar(name: str, count_jobs: Callable[[], int], progress: bool | None) -> Any:
    """Return a progress bar; None if `progress` is false, or None and there is no terminal or no tqdm."""
    if progress is False:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        if progress is None:
            return None
        raise missing_extra("progress=True", "tqdm", "progress", error) from error
    bar = tqdm(total=0, desc=name, unit="job", disable=None if progress is None else False)
    if bar.disable:
        return None  # standard error is not a terminal
    bar.total = count_jobs()
    return bar


def _draw(bar: Any, worked: Worked) -> None:
    done = worked.acked + worked.dead
    if done > bar.total:
        bar.total = done  # more jobs were put meanwhile
    bar.update(done - bar.n)
