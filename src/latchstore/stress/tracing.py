"""The trace function of a run's threads: counts points, and calls the strategy at points of choice.

``sys.settrace`` with opcode events is used on all Pythons: ``sys.monitoring`` has one set of callbacks for
all threads, and no events of single threads.

Thread safety: as in ``scheduler.py``: the thread that has the turn may access everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from threading import get_ident
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from latchstore.stress.places import checks_of, points_of
from latchstore.stress.tasks import TASKS, Task

if TYPE_CHECKING:
    from latchstore.stress.recorder import StepRecorder
    from latchstore.stress.scheduler import Scheduler

# In CPython 3.12 the first trace of a process gets no events of bytecodes unless a frame has asked before
# (python/cpython#114480).
sys._getframe().f_trace_opcodes = True

TraceFunction = Callable[[FrameType, str, Any], Any]


class Tracer:
    """Traces the threads of one run.

    Parameters
    ----------
    scheduler : Scheduler
    traced : callable
        Returns whether a code object is under test.
    """

    def __init__(self, scheduler: Scheduler, traced: Callable[[CodeType], bool]) -> None:
        self._scheduler = scheduler
        self._traced = traced

    def trace_again(self, task: Task) -> None:
        """Restart tracing in the calling thread; Python stops it when the trace function raises."""
        if not task.done:
            sys.settrace(self.trace_call)

    def trace_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Return the trace function of a frame of the code under test."""
        # hot path: before and after the bodies there are no choices, and half of the calls.
        if self._scheduler.free and not TASKS[get_ident()].helper:
            return None
        code = frame.f_code
        points = points_of(code) if self._traced(code) else None
        if not points:
            return None
        if code.co_name == "<module>":
            return self._trace_import(frame)
        task = TASKS[get_ident()]
        scheduler = self._scheduler

        # hot path: called before each bytecode of the code under test.
        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "opcode" and frame.f_lasti in points:
                scheduler.now += 1
                if scheduler.now >= scheduler.next_choice:
                    scheduler.ask(task)
            return trace

        chosen: TraceFunction = _helping(points, scheduler, task) if task.helper else trace
        if scheduler.at_check is not None:
            chosen = _checking(chosen, scheduler, task)
        if scheduler.recorder is not None:
            chosen = _noting(chosen, scheduler.recorder)
        # From Python 3.12 on, the first opcode events come only if f_trace is set before.
        frame.f_trace = chosen
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return chosen

    def _trace_import(self, frame: FrameType) -> Any:
        """Keep other threads from running while a module is imported, which holds a real lock."""
        self._scheduler.pinned += 1

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return":
                self._scheduler.pinned -= 1
            return trace

        frame.f_trace_lines = False
        return trace


def _helping(points: Collection[int], scheduler: Scheduler, task: Task) -> TraceFunction:
    """Return a trace function for a polling thread, which must pass its turn on even without choices."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and frame.f_lasti in points:
            scheduler.point_of_helper(task)
        return trace

    return trace


def _checking(trace: TraceFunction, scheduler: Scheduler, task: Task) -> TraceFunction:
    """Return a trace function that calls `Scheduler.at_check` where CPython may raise an exception."""

    def trace_and_check(frame: FrameType, event: str, arg: Any) -> Any:
        trace(frame, event, arg)
        at_check = scheduler.at_check
        if at_check is not None and event == "opcode" and frame.f_lasti in checks_of(frame.f_code):
            at_check(task)
        return trace_and_check

    return trace_and_check


def _noting(trace: TraceFunction, recorder: StepRecorder) -> TraceFunction:
    """Return a trace function that records the next action, when the thread has its turn again."""
    recorder.enter()

    def trace_and_note(frame: FrameType, event: str, arg: Any) -> Any:
        trace(frame, event, arg)
        if event == "opcode":
            recorder.note(frame)
        return trace_and_note

    return trace_and_note
