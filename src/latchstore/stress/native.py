"""Running workloads on threads of the operating system, which switch when they like.

Thread safety: each thread writes down its operations in a list of its own; they are put together when all
threads have ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Protocol

from latchstore.contract.errors import StoreError
from latchstore.contract.store import AbstractStore
from latchstore.stress.faults import Fault, InjectedError
from latchstore.stress.history import History, Operation, Outcome, environment
from latchstore.stress.workloads import Action, RolledBackError, Workload, outcome_of, prepare

#: Seconds after which an exception that one thread sets in another has come, or has been dropped.
_DROPPED_AFTER = 1.0


class WorkerError(Exception):
    """A thread of a run has met an error that no store may raise there.

    Attributes
    ----------
    history : History
        What was written down until then; an operation that has not ended is of unknown outcome.
    """

    def __init__(self, message: str, history: History | None = None) -> None:
        super().__init__(message)
        self.history: History = History(()) if history is None else history


class HangError(WorkerError):
    """The threads of a run do not end."""


class Log(Protocol):
    """Is told of each operation as it begins and ends, by the thread that does it."""

    def begun(self, thread: int, action: Action, begin: int) -> None:
        """Be told before an action is run."""

    def ended(self, operation: Operation) -> None:
        """Be told of an operation whose end is known; others stay begun."""


class _NoLog:
    """What is written down stays in the process."""

    def begun(self, thread: int, action: Action, begin: int) -> None:
        pass

    def ended(self, operation: Operation) -> None:
        pass


def run_native(
    store: AbstractStore,
    workloads: Sequence[Workload],
    *,
    threads: int = 4,
    operations: int = 1_000,
    seed: int = 0,
    switch_interval: float | None = None,
    timeout: float = 300.0,
    faults: Sequence[Fault] = (),
    seconds: float | None = None,
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
        Seconds that the run may take. When they are over, the stacks of all threads are written to stderr.
    faults : sequence of Fault
        What goes wrong meanwhile.
    seconds : float, optional
        After that no operation is begun, even if there are some left.

    Raises
    ------
    WorkerError
        If a thread met an error that is no StoreError, and that no fault leads to.
    HangError
        If the threads do not end in time.
    """
    for workload in workloads:
        prepare(workload, store)
    for fault in faults:
        fault.prepare(store)
    crew = Crew(store, workloads, faults, [operations] * threads, seed)
    header = {
        **environment(),
        "seed": seed,
        "threads": threads,
        "operations": operations,
        "workloads": [workload.name for workload in workloads],
    }
    try:
        with switching_after(switch_interval):
            crew.work(timeout, seconds)
    except WorkerError as error:
        error.history = History(crew.operations(), header)
        raise
    for fault in faults:
        fault.finish(store)
    facts = {workload.name: workload.finish(store) for workload in workloads}
    return History(crew.operations(), {**header, "facts": facts})


class Crew:
    """The threads of one run, or of one of its processes.

    Parameters
    ----------
    store : AbstractStore
    workloads : sequence of Workload
    faults : sequence of Fault
    lengths : sequence of int
        How many operations each thread does.
    seed : int
    first : int
        The number of the first thread.
    stride : int, optional
        How many threads there can be in all; by default those of the crew.
    log : Log, optional
        What is told of each operation.

    Attributes
    ----------
    written : list of lists of Operation
        Those of each thread.
    """

    def __init__(
        self,
        store: AbstractStore,
        workloads: Sequence[Workload],
        faults: Sequence[Fault],
        lengths: Sequence[int],
        seed: int,
        *,
        first: int = 0,
        stride: int | None = None,
        log: Log | None = None,
    ) -> None:
        threads = len(lengths)
        self._store = store
        self._first = first
        self._stride = stride or threads
        self._log: Log = log or _NoLog()
        # Of an error that a fault leads to nobody knows what it has left.
        expected = (each for fault in faults for each in fault.errors)
        self._expected: tuple[type[Exception], ...] = (RolledBackError, StoreError, *expected)
        self._workloads = workloads
        self._faults = faults
        self._seed = seed
        self.written: list[list[Operation]] = [[] for _ in range(threads)]
        # What each thread is doing: its action, and since when.
        self._open: list[tuple[Action, int] | None] = [None] * threads
        # How many actions each thread has yet to do.
        self._left = list(lengths)
        # Whether each thread has an exception from outside to deal with.
        self._interrupted = [False] * threads
        self._chance = random.Random(seed)  # noqa: S311 (nothing secret)
        self._errors: list[BaseException] = []
        self._over = False
        # The time after which no operation is begun.
        self._last_begin = inf
        self._barrier = threading.Barrier(threads + len(faults))
        self._workers = [
            threading.Thread(target=self._work, args=(number,), name=f"worker {number}", daemon=True)
            for number in range(threads)
        ]
        self._disturbers = [
            threading.Thread(target=self._disturb, args=(fault,), name=f"fault {fault.name}", daemon=True)
            for fault in faults
        ]

    def operations(self) -> Iterator[Operation]:
        """Return what was written down, and what is still under way."""
        for thread, (written, begun) in enumerate(zip(self.written, self._open, strict=True), self._first):
            yield from written
            if begun is not None and not (written and written[-1].begin == begun[1]):
                yield _operation(thread, begun[0], None, begun[1], None, "info")

    def work(self, timeout: float, seconds: float | None = None) -> None:
        """Start all threads and wait until they have ended."""
        deadline = time.monotonic() + timeout
        if seconds is not None:
            self._last_begin = time.monotonic() + seconds
        for thread in (*self._workers, *self._disturbers):
            thread.start()
        _join(self._workers, deadline)
        self._over = True
        _join(self._disturbers, deadline)
        if self._errors:
            raise WorkerError(f"a thread of the run met {self._errors[0]!r}") from self._errors[0]
        stuck = [thread.name for thread in (*self._workers, *self._disturbers) if thread.is_alive()]
        if stuck:
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
            raise HangError(f"after {timeout:g} s these threads have not ended: {', '.join(stuck)}")

    def _work(self, number: int) -> None:
        source = self._first + number
        turns = self._turns(source)
        self._barrier.wait()
        while self._has_left(number) or self._interrupted[number]:
            # An injected exception may come anywhere, between two operations too; only one at a time.
            # A run that has met an error is over: a store that has kept a lock would go on for hours.
            try:
                self._do_all(turns, number)
                self._await_exception(number)
            except StopIteration:
                # An exception from outside has ended what gives the actions. Those of a thread that is not
                # there come next, as each value is to be written once.
                source += self._stride
                turns = self._turns(source)
            except InjectedError:
                self._note_broken_off(number)
                self._interrupted[number] = False
            except BaseException as error:
                self._errors.append(error)
                return

    def _turns(self, number: int) -> Iterator[Iterator[Action]]:
        return itertools.cycle([workload.actions(number, self._seed) for workload in self._workloads])

    def _has_left(self, number: int) -> bool:
        return self._left[number] > 0 and not self._errors and time.monotonic() < self._last_begin

    def _do_all(self, turns: Iterator[Iterator[Action]], number: int) -> None:
        while self._has_left(number):
            self._left[number] -= 1
            self._do(next(next(turns)), number)

    def _await_exception(self, number: int) -> None:
        """Wait for the exception from outside, if there is one; it may have been dropped by a finalizer."""
        deadline = time.monotonic() + _DROPPED_AFTER
        while self._interrupted[number]:
            time.sleep(0)
            if time.monotonic() > deadline:
                _set_exception(threading.get_ident(), None)
                self._interrupted[number] = False

    def _do(self, action: Action, number: int) -> None:
        """Do one action and write it down."""
        store = self._store
        for fault in self._faults:
            fault.before_action(store, action.key)
        outcome: Outcome = "ok"
        result = None
        begin = time.monotonic_ns()
        # Known before it runs, as an exception from outside may come before it can be written down.
        self._open[number] = (action, begin)
        self._log.begun(self._first + number, action, begin)
        end: int | None = None
        try:
            result = action.run(store)
        except self._expected as error:
            outcome = outcome_of(error)
        if outcome != "info":
            end = time.monotonic_ns()
        operation = _operation(self._first + number, action, result, begin, end, outcome)
        if end is not None:
            self._log.ended(operation)
        self.written[number].append(operation)
        self._open[number] = None

    def _note_broken_off(self, number: int) -> None:
        """Write down the operation that an exception from outside has ended: nobody knows how."""
        begun, self._open[number] = self._open[number], None
        written = self.written[number]
        if begun is not None and not (written and written[-1].begin == begun[1]):
            written.append(_operation(self._first + number, begun[0], None, begun[1], None, "info"))

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise something in one of the workers that are busy, unless it has not dealt with the last."""
        for number in self._chance.sample(range(len(self._workers)), len(self._workers)):
            ident = self._workers[number].ident
            if self._open[number] is not None and not self._interrupted[number] and ident is not None:
                self._interrupted[number] = True
                _set_exception(ident, error)
                return True
        return False

    def _go_on_disturbing(self, fault: Fault) -> None:
        while not self._over and fault.disturb(self._store, self):
            pass

    def _disturb(self, fault: Fault) -> None:
        try:
            self._barrier.wait()
            self._go_on_disturbing(fault)
        except self._expected:
            return  # refused, as all others may be
        except BaseException as error:
            self._errors.append(error)


def _set_exception(ident: int, error: type[BaseException] | None) -> None:
    """Raise something in a thread as soon as it can be; None takes back what it has not met yet."""
    exception = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), exception)


def _operation(
    thread: int, action: Action, result: object, begin: int, end: int | None, outcome: Outcome
) -> Operation:
    return Operation(
        thread,
        action.name,
        action.key,
        action.argument,
        result,
        begin,
        end,
        outcome,
        revision=getattr(action, "revision", None),
    )


def _join(threads: Sequence[threading.Thread], deadline: float) -> None:
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def switching_after(seconds: float | None) -> Iterator[None]:
    """Have the interpreter change threads after so many seconds, if they are given."""
    before = sys.getswitchinterval()
    if seconds is not None:
        sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
