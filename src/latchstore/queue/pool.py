"""The threads that work on the jobs of a queue, for `WorkQueue.run`.

Thread safety:

1. Each worker claims a job, works on it and ends it; what the others do it sees in the store alone. It counts
   what it has done in counters of its own, which are read by others and written by itself.
2. The last that a worker does is to append itself to the pool's `ended`, by one call in C, and to ring. The
   thread that runs the pool looks each second all the same, for one that an exception has struck before that.
3. `stopping` is set once; then those that wait for a job are woken.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from latchstore.contract.codec import V
from latchstore.contract.errors import LeaseLostError
from latchstore.delivery.threads import DeliveryThread
from latchstore.delivery.waiting import Bell
from latchstore.queue.claiming import Claims
from latchstore.queue.job import Job

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds after which the pool looks at its workers, and at its progress bar.
_LOOK_AGAIN = 1.0
_DRAW_AGAIN = 0.1


class Worked(NamedTuple):
    """What the threads of a pool have done.

    Attributes
    ----------
    acked : int
        Jobs that are done.
    retried : int
        Attempts that have failed, of jobs that are tried again.
    dead : int
        Jobs that have become dead letters.
    lost : int
        Attempts whose lease was lost.
    """

    acked: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0


#: How the outcome of a job is counted.
_COUNTED = {"acked": "acked", "retried": "retried", "released": "retried", "failed": "dead", None: "lost"}


class Pool(Generic[V]):
    """Threads that call a function with each job.

    Parameters
    ----------
    claims : Claims
    function : callable
    lease : float
    is_over : callable
        Tells whether no more jobs come.
    name : str
        Of the queue, for the names of the threads and the progress bar.

    Attributes
    ----------
    stopping : bool
        Whether no further job is to be begun.
    ended : deque of Worker
    bell : Bell
        Rung when one has ended.
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
        # All that there were, those that have ended included.
        self._workers: list[Worker[V]] = []
        self._running: list[Worker[V]] = []

    def run(self, threads: int, count_jobs: Callable[[], int], progress: bool | None) -> Worked:
        """Run workers until no more jobs come; return what they have done.

        Parameters
        ----------
        threads : int
        count_jobs : callable
            Returns how many jobs there are, for the progress bar.
        progress : bool or None
            Whether to show one; if None, if that is possible.
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
        """What the workers have done so far."""
        return Worked(*map(sum, zip(*[worker.counts for worker in self._workers], strict=True)))

    def next_job(self) -> Job[V] | None:
        """Claim the next job for a worker; None if it is to end."""
        return None if self.stopping else self._claims.wait(self._lease, None, self._is_to_end)

    def _is_to_end(self) -> bool:
        return self.stopping or self._is_over()

    def _start(self) -> None:
        worker = Worker(self, self._function, f"latchstore-queue-{self._name}-{len(self._workers)}")
        self._workers.append(worker)
        worker.start()
        self._running.append(worker)

    def _look_after(self, bar: Any) -> None:
        """Wait until all workers have ended; replace those that have died, unless the pool stops."""
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
            return  # it was found by a look
        self._running.remove(worker)
        error = worker.error
        if worker.is_done or self.stopping:
            return
        if isinstance(error, Exception):
            raise error  # no job can be claimed: the store was closed, say
        logger.warning("a worker of queue %r has died, and is replaced: %r", self._name, error)
        self._start()


class Worker(DeliveryThread, Generic[V]):
    """A thread that works on jobs.

    Attributes
    ----------
    counts : list of int
        In the order of `Worked`.
    is_done : bool
        Whether it has ended because no more jobs come.
    error : BaseException or None
        What has ended it otherwise.
    """

    def __init__(self, pool: Pool[V], function: Callable[[Job[V]], object], name: str) -> None:
        super().__init__(self.run, name)  # whose start ends even if the thread is struck as it begins
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
                logger.exception("%r has failed", job)
        self._count(_COUNTED[job.outcome])

    def _count(self, what: str) -> None:
        self.counts[Worked._fields.index(what)] += 1


def _bar(name: str, count_jobs: Callable[[], int], progress: bool | None) -> Any:
    """Return a progress bar; None if none is wanted, or, if that was left open, none can be seen."""
    if progress is False:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        if progress is None:
            return None
        raise ImportError("progress=True needs tqdm: python -m pip install 'latchstore[progress]'") from error
    bar = tqdm(total=0, desc=name, unit="job", disable=None if progress is None else False)
    if bar.disable:
        return None  # the standard error is no terminal
    bar.total = count_jobs()
    return bar


def _draw(bar: Any, worked: Worked) -> None:
    done = worked.acked + worked.dead
    if done > bar.total:
        bar.total = done  # jobs were put meanwhile
    bar.update(done - bar.n)
