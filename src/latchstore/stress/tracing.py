"""The trace function of the threads of a run: it counts points, and asks the strategy at those it wants.

``sys.settrace`` with opcode events is used on all Pythons: ``sys.monitoring`` has one set of callbacks for
all threads, and no events of single threads.

Thread safety: as in ``scheduler.py``: whoever has the turn may touch everything.
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

TraceFunction = Callable[[FrameType, str, Any], Any]


class Tracer:
    """Traces the threads of one run.

    Parameters
    ----------
    scheduler : Scheduler
    traced : callable
        Whether a code object is of the code under test.
    """

    def __init__(self, scheduler: Scheduler, traced: Callable[[CodeType], bool]) -> None:
        self._scheduler = scheduler
        self._traced = traced

    def trace_again(self, task: Task) -> None:
        """Trace the calling thread again, which Python stops when the trace function has raised something."""
        if not task.done:
            sys.settrace(self.trace_call)

    def trace_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Return the trace function of a frame of the code under test."""
        # hot path: before and after the bodies nobody is asked, and half of the calls are there.
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
        # On Python 3.12 and newer the first opcode events come only if f_trace is set before.
        frame.f_trace = chosen
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return chosen

    def _trace_import(self, frame: FrameType) -> Any:
        """Have no other thread come in while a module is imported, as that holds a real lock."""
        self._scheduler.pinned += 1

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return":
                self._scheduler.pinned -= 1
            return trace

        frame.f_trace_lines = False
        return trace


def _helping(points: Collection[int], scheduler: Scheduler, task: Task) -> TraceFunction:
    """Return a trace function for a thread that polls: it must give its turn away even if nobody is asked."""

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
    """Return a trace function that notes what is run next, when the turn is the thread's again."""
    recorder.enter()

    def trace_and_note(frame: FrameType, event: str, arg: Any) -> Any:
        trace(frame, event, arg)
        if event == "opcode":
            recorder.note(frame)
        return trace_and_note

    return trace_and_note
