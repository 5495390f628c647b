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
TraceMaker = Callable[[Collection[int], "Scheduler"], TraceFunction]


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
        # The trace functions of code objects, by identity; with the code, so that no identity is used again.
        self._of_bodies: dict[int, tuple[CodeType, TraceFunction | None]] = {}
        self._of_helpers: dict[int, tuple[CodeType, TraceFunction | None]] = {}

    def start(self, task: Task) -> None:
        """Trace the calling thread, from its next call on."""
        if not task.done:
            sys.settrace(self._trace_helper if task.helper else self._trace_body)

    def _trace_body(self, frame: FrameType, event: str, arg: Any) -> Any:
        # hot path: before and after the bodies there are no choices, and half of the calls.
        if self._scheduler.free:
            return None
        code = frame.f_code
        # By identity: a code object computes its hash from all its constants and names, each time.
        known = self._of_bodies.get(id(code))
        if known is None:
            known = self._of_bodies[id(code)] = code, self._trace_of(code, _counting)
        return None if known[1] is None else self._traced_from_now(frame, known[1])

    def _trace_helper(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        known = self._of_helpers.get(id(code))
        if known is None:
            known = self._of_helpers[id(code)] = code, self._trace_of(code, _helping)
        return None if known[1] is None else self._traced_from_now(frame, known[1])

    def _trace_of(self, code: CodeType, kind: TraceMaker) -> TraceFunction | None:
        """Return the trace function for the frames of a code object; None if there are no points in it."""
        points = points_of(code) if self._traced(code) else None
        return kind(points, self._scheduler) if points else None

    def _traced_from_now(self, frame: FrameType, trace: TraceFunction) -> Any:
        scheduler = self._scheduler
        if frame.f_code.co_name == "<module>":
            return self._trace_import(frame)
        if scheduler.at_check is not None:
            trace = _checking(trace, scheduler)
        if scheduler.recorder is not None:
            trace = _noting(trace, scheduler.recorder)
        # From Python 3.12 on, the first opcode events come only if f_trace is set before.
        frame.f_trace = trace
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return trace

    def _trace_import(self, frame: FrameType) -> Any:
        """Keep other threads from running while a module is imported, which holds a real lock."""
        self._scheduler.pinned += 1

        def trace(frame: FrameType, event: str, arg: Any) -> None:
            if event == "return":
                self._scheduler.pinned -= 1

        frame.f_trace_lines = False
        return trace


# Trace functions of frames return None, which leaves them in use. If they returned themselves, as is usual,
# each would refer to itself, and only the garbage collector could free it.


def _counting(points: Collection[int], scheduler: Scheduler) -> TraceFunction:
    """Return a trace function that counts points, and has a choice at some of them."""

    # hot path: called before each bytecode of the code under test.
    def trace(frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_lasti in points and event == "opcode":
            scheduler.now += 1
            if scheduler.now >= scheduler.next_choice:
                scheduler.ask(TASKS[get_ident()])

    return trace


def _helping(points: Collection[int], scheduler: Scheduler) -> TraceFunction:
    """Return a trace function for a polling thread, which must pass its turn on even without choices."""

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_lasti in points and event == "opcode":
            scheduler.point_of_helper(TASKS[get_ident()])

    return trace


def _checking(trace: TraceFunction, scheduler: Scheduler) -> TraceFunction:
    """Return a trace function that calls `Scheduler.at_check` where CPython may raise an exception."""

    def trace_and_check(frame: FrameType, event: str, arg: Any) -> None:
        trace(frame, event, arg)
        at_check = scheduler.at_check
        if at_check is not None and event == "opcode" and frame.f_lasti in checks_of(frame.f_code):
            at_check(TASKS[get_ident()])

    return trace_and_check


def _noting(trace: TraceFunction, recorder: StepRecorder) -> TraceFunction:
    """Return a trace function that records the next action, when the thread has its turn again."""
    recorder.enter()

    def trace_and_note(frame: FrameType, event: str, arg: Any) -> None:
        trace(frame, event, arg)
        if event == "opcode":
            recorder.note(frame)

    return trace_and_note
