"""The settings of a run of the harness.

Thread safety: a plan does not change.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from latchstore.stress.faults import Fault
from latchstore.stress.schedules import ScheduleKind
from latchstore.stress.workloads import Workload

#: The default store.
OUR_STORE = "latchstore:DictMemoryStore"

#: Operations of one round on native threads, over all threads.
_ROUND = 20_000

#: Operations of a task in one round of a random schedule: many rounds differ more than long ones.
_LENGTH_AT_RANDOM = 40


@dataclass(frozen=True)
class Plan:
    """The settings of a run.

    Attributes
    ----------
    store : str
        ``"module:Class"``.
    workloads : sequence of Workload
    threads : int
    seconds : float or None
        Duration of the run; None: until `operations` are done. Native threads go on for a while after it, so
        that each workload has a round.
    operations : int or None
        Number of operations over all threads; the run ends after the round or schedule that reaches it; on
        native threads not before each workload had a round.
    seed : int
    schedule : str
        ``"mixed"`` (whole, random and PCT in turn, then native), ``"native"``, ``"random"``, ``"whole"``,
        ``"pct"`` or ``"exhaustive"``.
    length : int or None
        Number of operations of each thread in one round or schedule; None: see `Settings`.
    faults : sequence of classes
    switch_interval : float
        In seconds; for native threads.
    preemptions : int
        For exhaustive schedules.
    shrink : bool
        Whether a failing schedule is reduced.
    modules : sequence of str
        Names of the modules in which threads may switch; if empty, the packages of the store.
    processes : int
        Number of processes, each with `threads` threads; more than one only with native schedules.
    timeout : float
        Seconds after which a round of native threads is abandoned.
    tasks : int
        Number of tasks of each thread, in an event loop; 0 for none. A random schedule has one loop, in which
        the seed decides which callback runs next.
    """

    workloads: Sequence[Workload]
    store: str = OUR_STORE
    threads: int = 4
    seconds: float | None = 10.0
    operations: int | None = None
    seed: int = 0
    schedule: ScheduleKind = "native"
    length: int | None = None
    faults: Sequence[type[Fault]] = ()
    switch_interval: float = 1e-6
    preemptions: int = 1
    shrink: bool = True
    modules: Sequence[str] = ()
    processes: int = 1
    timeout: float = 300.0
    tasks: int = 0

    @property
    def workers(self) -> int:
        """How many threads, or tasks, a process has in one round; a random schedule of tasks has one loop."""
        if not self.tasks:
            return self.threads
        return self.tasks * (1 if self.schedule == "random" else self.threads)

    @property
    def length_of_a_round(self) -> int:
        """Number of operations of each thread in one round on native threads."""
        if self.length is not None:
            return self.length
        if self.tasks and self.schedule == "random":
            return _LENGTH_AT_RANDOM
        total = _ROUND if self.operations is None else min(_ROUND, self.operations)
        return -(-total // (self.workers * self.processes))

    def command(self, *, seed: int, workloads: Sequence[str], length: int) -> str:
        """Return the command that repeats one round or schedule."""
        words = ["python", "-m", "latchstore", "stress"]
        order = os.environ.get("PYTHONHASHSEED", "random")
        if order.isdecimal():
            words.insert(0, f"PYTHONHASHSEED={order}")
        if self.store != OUR_STORE:
            words += ["--store", self.store]
        words += ["--workload", ",".join(workloads), "--schedule", self.schedule]
        if self.processes > 1:
            words += ["--processes", str(self.processes)]
        if self.tasks:
            words += ["--tasks", str(self.tasks)]
        words += ["--threads", str(self.threads), "--length", str(length)]
        words += ["--seed", str(seed)]
        if self.schedule != "exhaustive":
            words += ["--ops", "1"]
        elif self.preemptions != 1:
            words += ["--preemptions", str(self.preemptions)]
        if self.modules:
            words += ["--within", ",".join(self.modules)]
        if self.faults:
            words += ["--faults", ",".join(fault.name for fault in self.faults)]
        if self.schedule == "native":
            words += ["--switch-interval", f"{self.switch_interval:g}"]
        return shlex.join(words)
