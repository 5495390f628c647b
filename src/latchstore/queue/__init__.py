"""Work queues for pools of threads, whose jobs are entries of the user's own store.

This package imports the engine and the packages below it; the store does not import it. Begin with
``work_queue.py``, which has `WorkQueue`: putting, closing, statistics. ``claiming.py`` finds, leases and
waits for jobs, ``job.py`` has a claimed job, ``dead_letter.py`` the jobs that have failed for good,
``pool.py`` the threads of `WorkQueue.run`. ``places.py`` defines how metadata stores the state of a job,
``settings.py`` what all parts of a queue share.
"""

from latchstore.queue.dead_letter import DeadLetter
from latchstore.queue.job import Job
from latchstore.queue.pool import Worked
from latchstore.queue.work_queue import WorkQueue

__all__ = ["DeadLetter", "Job", "WorkQueue", "Worked"]
