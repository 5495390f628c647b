"""Running workloads on threads of the operating system, which switch when they like.

Thread safety: each thread writes down its operations in a list of its own; they are put together when all
threads have ended.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from latchstore.errors import StoreError
from latchstore.store import AbstractStore
from latchstore.stress.history import History, Operation, Outcome, environment
from latchstore.stress.workloads import Action, RolledBackError, Workload


class WorkerError(Exception):
    """A thread of a run has met an error that no store may raise there."""


def run_native(
    store: AbstractStore,
    workloads: Sequence[Workload],
    *,
    threads: int = 4,
    operations: int = 1_000,
    seed: int = 0,
    switch_interval: float | None = None,
    timeout: float = 300.0,
) -> History:
    """Have threads do what the workloads say, all from one moment on, and write it down.

    Parameters
    ----------
    store : AbstractStore
    workloads : sequence of Workload
        Each thread does one action of each, in turn.
    threads, operations : int
        How many threads, and how many operations each of them does.
    seed : int
    switch_interval : float, optional
        Seconds after which the interpreter has threads take turns, for the time of the run.
    timeout : float
        Seconds that the run may take.

    Raises
    ------
    WorkerError
        If a thread met an error that is no StoreError, or does not end in time.
    """
    barrier = threading.Barrier(threads)
    written: list[list[Operation]] = [[] for _ in range(threads)]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        actions = [workload.actions(number, seed) for workload in workloads]
        turns = itertools.islice(itertools.cycle(actions), operations)
        try:
            barrier.wait(timeout)
            for turn in turns:
                written[number].append(_done(store, next(turn), number))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    with _switching_after(switch_interval):
        deadline = time.monotonic() + timeout
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise WorkerError(f"a thread of the run met {errors[0]!r}") from errors[0]
    stuck = [worker.name for worker in workers if worker.is_alive()]
    if stuck:
        raise WorkerError(f"after {timeout:g} s these threads have not ended: {', '.join(stuck)}")
    header = {
        **environment(),
        "seed": seed,
        "threads": threads,
        "operations": operations,
        "workloads": [workload.name for workload in workloads],
    }
    return History(itertools.chain.from_iterable(written), header)


def _done(store: AbstractStore, action: Action, thread: int) -> Operation:
    """Do one action and write it down."""
    outcome: Outcome = "ok"
    result = None
    begin = time.monotonic_ns()
    try:
        result = action.run(store)
    except RolledBackError:
        outcome = "fail"
    except StoreError:
        # Refused: a lock that did not come free, a conflict. Such a call must have changed nothing.
        outcome = "fail"
    end = time.monotonic_ns()
    return Operation(thread, action.name, action.key, action.argument, result, begin, end, outcome)


@contextmanager
def _switching_after(seconds: float | None) -> Iterator[None]:
    before = sys.getswitchinterval()
    if seconds is not None:
        sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
