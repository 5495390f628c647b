"""Runs workloads on threads of the operating system.

Thread safety: each thread records its operations in a list of its own; the lists are joined after all threads
have ended.
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

#: Seconds after which an exception set in another thread has been raised or dropped.
_DROPPED_AFTER = 1.0

#: Seconds that faults have to undo what they do at the moment, before anything is written.
_UNDONE_AFTER = 1.0


class WorkerError(Exception):
    """A thread of a run got an error that the store must not raise.

    Attributes
    ----------
    history : History
        The history until then; an operation without an end has an unknown outcome.
    """

    def __init__(self, message: str, history: History | None = None) -> None:
        super().__init__(message)
        self.history: History = History(()) if history is None else history


class HangError(WorkerError):
    """The threads of a run do not end."""


class CrewMaker(Protocol):
    """Makes the threads of a run."""

    def __call__(
        self,
        store: AbstractStore,
        workloads: Sequence[Workload],
        faults: Sequence[Fault],
        lengths: Sequence[int],
        seed: int,
    ) -> Crew:
        """Return them."""


class Log(Protocol):
    """Notified of the begin and end of each operation, by its thread."""

    def begun(self, thread: int, action: Action, begin: int) -> None:
        """Record an action before it runs."""

    def ended(self, operation: Operation) -> None:
        """Record an operation whose end is known; others stay begun."""


class _NoLog:
    """A log that discards its records."""

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
    make_crew: CrewMaker | None = None,
) -> History:
    """Run workloads in threads that start at the same moment, and record their operations.

    Parameters
    ----------
    store : AbstractStore
    workloads : sequence of Workload
        Each thread runs one action of each, in turn.
    threads, operations : int
        Number of threads, and number of operations of each thread, or of each task.
    seed : int
    switch_interval : float, optional
        Switch interval of the interpreter during the run, in seconds.
    timeout : float
        Time limit. After it the stacks of all threads are written to stderr.
    faults : sequence of Fault
        Faults of the run.
    seconds : float, optional
        Seconds after which no operation begins, even if there are some left.
    make_crew : callable, optional
        Makes the `Crew`: called with store, workloads, faults, the lengths for all workers, and seed.

    Raises
    ------
    WorkerError
        If a thread got an error that is not a StoreError and that no fault explains.
    HangError
        If the threads do not end in time.
    """
    for workload in workloads:
        prepare(workload, store)
    for fault in faults:
        fault.prepare(store)
    crew = (make_crew or Crew)(store, workloads, faults, [operations] * threads, seed)
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
        Number of operations of each thread.
    seed : int
    first : int
        The number of the first thread.
    stride : int, optional
        Maximum number of threads in total; by default those of the crew.
    log : Log, optional
        Notified of each operation.

    Attributes
    ----------
    written : list of lists of Operation
        The operations of each thread.
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
        # The effect of an operation that fails with an error of a fault is unknown.
        expected = (each for fault in faults for each in fault.errors)
        self._expected: tuple[type[Exception], ...] = (RolledBackError, StoreError, *expected)
        self._workloads = workloads
        self._faults = faults
        self._seed = seed
        self.written: list[list[Operation]] = [[] for _ in range(threads)]
        # The present action of each thread, and its begin.
        self._open: list[tuple[Action, int] | None] = [None] * threads
        # The number of actions that each thread has left.
        self._left = list(lengths)
        # Whether an exception from outside is pending in each thread, and whether the thread has ended: its
        # identifier may be that of another one then. Each is set while the lock is held.
        self._interrupted = [False] * threads
        self._ended = [False] * threads
        self._deciding = threading.Lock()
        self._chance = random.Random(seed)  # noqa: S311 (nothing secret)
        self._errors: list[BaseException] = []
        self._over = False
        # The time after which no operation begins.
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
        """Return the recorded operations, and those in progress."""
        for thread, (written, begun) in enumerate(zip(self.written, self._open, strict=True), self._first):
            yield from written
            if begun is not None and not (written and written[-1].begin == begun[1]):
                yield _operation(thread, begun[0], None, begun[1], None, "info")

    def work(self, timeout: float, seconds: float | None = None) -> None:
        """Start all threads and wait until they have ended."""
        deadline = time.monotonic() + timeout
        if seconds is not None:
            self._last_begin = time.monotonic() + seconds
        try:
            for thread in (*self._workers, *self._disturbers):
                thread.start()
            _join(self._workers, deadline)
        finally:
            # Also after Ctrl-C: under a fault, such as a full disk, what is printed may be lost.
            self._over = True
            _join(self._disturbers, time.monotonic() + _UNDONE_AFTER)
        _join(self._disturbers, deadline)
        if self._errors:
            raise WorkerError(f"a thread of the run raised {self._errors[0]!r}") from self._errors[0]
        stuck = [thread.name for thread in (*self._workers, *self._disturbers) if thread.is_alive()]
        if stuck:
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
            raise HangError(f"after {timeout:g} s these threads have not ended: {', '.join(stuck)}")

    def _work(self, number: int) -> None:
        source = self._first + number
        turns = self._turns(source)
        self._barrier.wait()
        while True:
            # An injected exception may come anywhere, also between two operations; only one at a time. A run
            # ends at its first error: with a store that has left a lock held it would continue for hours.
            try:
                self._do_all(turns, number)
                self._await_exception(number)
                if self._ends(number):
                    return
            except StopIteration:
                # An exception from outside has ended the source of actions. Continue with those of a thread
                # that does not exist, as each value must be written once.
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
        return (
            self._left[number] > 0
            and not (self._errors or self._over)
            and time.monotonic() < self._last_begin
        )

    def _ends(self, number: int) -> bool:
        """Return whether a thread ends; no exception from outside is set in it from then on."""
        with self._deciding:
            if not (self._has_left(number) or self._interrupted[number]):
                self._ended[number] = True
        return self._ended[number]

    def _do_all(self, turns: Iterator[Iterator[Action]], number: int) -> None:
        while self._has_left(number):
            self._left[number] -= 1
            self._do(next(next(turns)), number)

    def _await_exception(self, number: int) -> None:
        """Wait for the pending exception from outside; a finalizer may have swallowed it."""
        deadline = time.monotonic() + _DROPPED_AFTER
        while self._interrupted[number]:
            time.sleep(0)
            if time.monotonic() > deadline:
                _set_exception(threading.get_ident(), None)
                self._interrupted[number] = False

    def _do(self, action: Action, number: int) -> None:
        """Run one action and record it."""
        store = self._store
        for fault in self._faults:
            fault.before_action(store, action.key)
        outcome: Outcome = "ok"
        result = None
        begin = time.monotonic_ns()
        # Recorded before it runs, as an exception from outside may come before it can be recorded.
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
        """Record the operation that an exception from outside has ended, with an unknown outcome."""
        begun, self._open[number] = self._open[number], None
        written = self.written[number]
        if begun is not None and not (written and written[-1].begin == begun[1]):
            written.append(_operation(self._first + number, begun[0], None, begun[1], None, "info"))

    def interrupt(self, error: type[BaseException]) -> bool:
        """Raise an exception in a busy worker, unless its last one is still pending."""
        for number in self._chance.sample(range(len(self._workers)), len(self._workers)):
            if self._open[number] is not None and self._interrupt(number, error):
                return True
        return False

    def _interrupt(self, number: int, error: type[BaseException]) -> bool:
        with self._deciding:
            ident = self._workers[number].ident
            if self._interrupted[number] or self._ended[number] or ident is None:
                return False
            self._interrupted[number] = True
            _set_exception(ident, error)
            return True

    def _go_on_disturbing(self, fault: Fault) -> None:
        while not self._over and fault.disturb(self._store, self):
            pass

    def _disturb(self, fault: Fault) -> None:
        try:
            self._barrier.wait()
            self._go_on_disturbing(fault)
        except self._expected:
            return  # refused, as any operation may be
        except BaseException as error:
            self._errors.append(error)


def _set_exception(ident: int, error: type[BaseException] | None) -> None:
    """Raise an exception in a thread as soon as possible; None cancels a pending one."""
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
    """Set the switch interval of the interpreter, if it is given."""
    before = sys.getswitchinterval()
    if seconds is not None:
        sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
