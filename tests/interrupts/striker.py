"""Raising an exception at the n-th place where CPython can, of those that this thread passes."""

from __future__ import annotations

import ctypes
import dis
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import latchstore
from tests.interrupts import places

_PACKAGE = Path(latchstore.__file__).parent
_NOT_THE_STORE = tuple(str(_PACKAGE / name) for name in ("stress", "examples", "__main__.py"))

#: Sets what the interpreter raises in a thread when it next looks for exceptions from outside.
set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

_NOWHERE: frozenset[int] = frozenset()


def _ask_for_opcodes() -> None:
    """Have the trace that is set next told of opcodes.

    sys.settrace of Python 3.12 sees to that only if a frame has asked before: without this the first trace of
    a process hears of none.
    """
    sys._getframe().f_trace_opcodes = True


class Delivered(BaseException):
    """An exception that a thread sets for itself."""


def take_back_pending() -> None:
    """Take back that an exception is pending, which may be set in a thread that never goes on.

    CPython 3.11 looks for it at every bytecode from then on, and a thread whose bytecodes are traced does
    not get any further. It is taken back by the delivery of another one. That is set again until it comes: it
    may meet a new thread in place of this one, as CPython knows a thread that has not begun yet by the
    identifier of the one that has made it. Nothing is collected meanwhile: it would be raised in a finalizer,
    of which Python warns.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        while True:
            set_exception(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Delivered))
    except Delivered:
        pass
    finally:
        if collecting:
            gc.enable()


class Striker:
    """Raises something at one of the places where CPython can; a context manager.

    What comes from outside is not raised by the trace, whose exceptions have the place of the instruction
    that is about to run. It is set as another thread would set it, right before an instruction that checks,
    and raised by the interpreter. On entry of a function, and where memory is asked for, the trace raises it:
    both places are those of the instruction that follows.

    Parameters
    ----------
    number : int
        At which place, counted from 1; 0 for none.
    kind : type of BaseException, optional
        What is raised. RecursionError comes on entry of functions; all else on entry, at the ends of calls,
        at backward jumps; MemoryError where memory is asked for as well. If None, `instead` is called, before
        any bytecode.
    instead : callable, optional
        What is called in place of raising something.
    files : tuple of Path
        Other files whose places count.

    Attributes
    ----------
    executed : int
        How many places were passed up to that one, or in all.
    place : str or None
        Where it struck.
    """

    _get_trace = staticmethod(sys.gettrace)
    _set_trace = staticmethod(sys.settrace)

    def __init__(
        self,
        number: int,
        kind: type[BaseException] | None = None,
        instead: Callable[[], object] | None = None,
        files: tuple[Path, ...] = (),
    ) -> None:
        self._files = tuple(map(str, files))
        self._number = number
        self._kind = kind
        self._instead = instead
        self.executed = 0
        self.place: str | None = None

    def __enter__(self) -> Self:
        take_back_pending()
        self._before = self._get_trace(), sys.unraisablehook, gc.isenabled()
        # The collector would run finalizers of what earlier tests have left in the middle of this one. If one
        # of them is struck, CPython 3.11 may go on with the wrong stack where the collector was begun.
        gc.disable()
        # What is raised in a finalizer goes no further: Python tells of it and drops it.
        sys.unraisablehook = lambda unraisable: None
        _ask_for_opcodes()
        self._set_trace(self._call)
        return self

    def __exit__(self, *details: object) -> None:
        trace, sys.unraisablehook, collecting = self._before
        self._set_trace(trace)
        if collecting:
            gc.enable()

    def is_ours(self, frame: FrameType) -> bool:
        """Tell whether the places of a frame count."""
        file = frame.f_code.co_filename
        ours = file.startswith(str(_PACKAGE)) and not file.startswith(_NOT_THE_STORE)
        return ours or file in self._files

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.place is not None or not self.is_ours(frame):
            return None
        if self._kind is not None and places.is_entry(frame, first=self._kind is RecursionError):
            self.executed += 1
            if self.executed == self._number:
                self._note(frame)
                raise self._kind("struck")
        trace = self._trace_any() if self._kind is None else self._trace_of(frame.f_code, self._kind)
        if trace is not None:
            # On Python 3.12 and newer the first opcode events come only if f_trace is set before.
            frame.f_trace = trace
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
        return trace

    def _trace_of(self, code: CodeType, kind: type[BaseException]) -> Any:
        """Return what is called before each bytecode of the code."""
        if kind is RecursionError:
            return None
        checked = places.checks(code)
        allocating = places.allocations(code) if kind is MemoryError else _NOWHERE
        if not (checked or allocating):
            return None
        # Iterating this sets the exception.
        setting = map(set_exception, [ctypes.c_ulong(threading.get_ident())], [ctypes.py_object(kind)])

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if event != "opcode" or self.place is not None:
                return trace
            if frame.f_lasti not in checked and frame.f_lasti not in allocating:
                return trace
            self.executed += 1
            if self.executed != self._number:
                return trace
            self._note(frame)
            if frame.f_lasti in allocating:
                raise kind("struck")
            # CPython 3.15 checks at the beginning of a `with` while opcodes are traced, and only then.
            frame.f_trace_opcodes = False
            sys.settrace(None)
            # A list is made of an iterator without a check, so it is not this function that is struck.
            [*setting]
            return None

        return trace

    def _trace_any(self) -> Any:
        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if event == "opcode" and self.place is None:
                self.executed += 1
                if self.executed == self._number:
                    self._note(frame)
                    sys.settrace(None)
                    assert self._instead is not None
                    self._instead()
            return trace

        return trace

    def _note(self, frame: FrameType) -> None:
        code = frame.f_code
        name = dis.opname[code.co_code[frame.f_lasti]]
        self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname} {name}"


class ThreadStriker(Striker):
    """Does so in another thread, which is started meanwhile, and is told by how its name begins."""

    _get_trace = staticmethod(threading.gettrace)
    _set_trace = staticmethod(threading.settrace)

    def __init__(
        self,
        number: int,
        name: str,
        kind: type[BaseException] | None = None,
        instead: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(number, kind, instead)
        self._name = name

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if not threading.current_thread().name.startswith(self._name):
            sys.settrace(None)
            return None
        return super()._call(frame, event, argument)
