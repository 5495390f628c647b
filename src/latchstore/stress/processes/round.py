"""One run of workloads by several processes on one store, from making the store to its history.

Thread safety: one run at a time in a process.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latchstore.contract.store import AbstractStore
from latchstore.stress.faults import Fault, Kill
from latchstore.stress.history import History, Operation, environment
from latchstore.stress.processes.records import Order
from latchstore.stress.processes.shared import SharedStores, attached, created, destroyed
from latchstore.stress.processes.team import Team, import_once, threads_of
from latchstore.stress.result import Mark, Problem
from latchstore.stress.workloads import Workload, prepare

#: Upper limit of the threads of a run, those of replacement processes included.
_MOST_THREADS = 10_000


@dataclass
class ProcessRound:
    """The settings of one run.

    Attributes
    ----------
    stores : SharedStores
    workloads : sequence of Workload
        Named workloads.
    processes, threads, operations : int
        Number of processes, threads of each process, and operations of each thread.
    seed : int
    switch_interval : float
    faults : sequence of classes
    seconds : float or None
        Seconds after which no operation begins.
    timeout : float
        Seconds after which the run is abandoned.
    """

    stores: SharedStores
    workloads: Sequence[Workload]
    processes: int
    threads: int
    operations: int
    seed: int = 0
    switch_interval: float = 0.005
    faults: Sequence[type[Fault]] = ()
    seconds: float | None = None
    timeout: float = 300.0
    problems: list[Problem] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def run(self) -> History:
        """Run it; `problems` and `marks` then have the problems and the injected faults."""
        header: dict[str, Any] = {
            **environment(),
            "seed": self.seed,
            "processes": self.processes,
            "threads": self.threads,
            "operations": self.operations,
            "workloads": [workload.name for workload in self.workloads],
        }
        directory, where = created(self.stores)
        try:
            options = self._options(where)
            store = attached(self.stores, where, options)
            try:
                import_once(type(store))
                return self._run_on(store, self._orders(directory, where, options), header)
            finally:
                store.close()
        finally:
            destroyed(self.stores, where, directory)

    def _options(self, where: Any) -> dict[str, Any]:
        """Return the options of the store: those of the faults, and of the workloads if accepted."""
        needed = {name: value for fault in self.faults for name, value in fault.options.items()}
        asked = {name: value for workload in self.workloads for name, value in workload.options.items()}
        if asked:
            try:
                attached(self.stores, where, {**asked, **needed}).close()
            except TypeError:
                return needed  # options of another kind of store
        return {**asked, **needed}

    def _orders(self, directory: str, where: Any, options: dict[str, Any]) -> list[Order]:
        return [
            Order(
                self.stores,
                where,
                options,
                [workload.name for workload in self.workloads],
                [fault.name for fault in self.faults if fault is not Kill],
                {},
                number * self.threads,
                _MOST_THREADS,
                [self.operations] * self.threads,
                self.seed,
                self.switch_interval,
                self.seconds,
                os.path.join(directory, f"stacks-of-{number + 1}"),
            )
            for number in range(self.processes)
        ]

    def _run_on(self, store: AbstractStore, orders: Sequence[Order], header: dict[str, Any]) -> History:
        for workload in self.workloads:
            prepare(workload, store)
        kills = Kill in self.faults
        team = Team(
            [replace(each, handed=self._hand_over(threads_of(each), ())) for each in orders],
            self._hand_over,
            random.Random(f"kills {self.seed}") if kills else None,  # noqa: S311 (nothing secret)
            self.timeout,
        )
        team.run()
        self.marks += team.marks
        self.problems += team.problems
        if not self.problems:
            header["facts of processes"] = team.found()
            header["facts"] = {workload.name: workload.finish(store) for workload in self.workloads}
        return History(team.operations(), header)

    def _hand_over(self, threads: range, before: Sequence[Sequence[Operation]]) -> dict[str, Any]:
        return {workload.name: workload.hand_over(threads, before) for workload in self.workloads}
