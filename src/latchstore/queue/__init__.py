"""Work queues for pools of threads, whose jobs are entries of the user's own store.

It imports from the engine and what is below it; the store does not load it. Begin with ``work_queue.py``,
which has `WorkQueue`: putting, closing, statistics. ``claiming.py`` has how a job is found, leased and waited
for, ``job.py`` what a worker does with one, ``dead_letter.py`` the jobs that have failed for good,
``pool.py`` the threads of `WorkQueue.run`. How the state of a job is written into its metadata is in
``places.py``; what all of these share of one queue in ``settings.py``.
"""

from latchstore.queue.dead_letter import DeadLetter
from latchstore.queue.job import Job
from latchstore.queue.pool import Worked
from latchstore.queue.work_queue import WorkQueue

__all__ = ["DeadLetter", "Job", "WorkQueue", "Worked"]
