"""Raising an exception before the n-th bytecode that the package executes in this thread."""

from __future__ import annotations

import dis
import functools
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import latchstore

_PACKAGE = Path(latchstore.__file__).parent
_NOT_THE_STORE = tuple(str(_PACKAGE / name) for name in ("stress", "demo", "__main__.py"))


#: With these the interpreter keeps its books of the exception that is being handled. Nothing can be raised
#: there. What a trace raises all the same leaves the books wrong: the thread goes on in a handler that it has
#: left, or calls a traceback.
_BOOKKEEPING = ("PUSH_EXC_INFO", "POP_EXCEPT")


@functools.cache
def _bookkeeping(code: CodeType) -> frozenset[int]:
    """Return the places of those bytecodes, and of the copy that is made for one."""
    instructions = list(dis.get_instructions(code))
    return frozenset(
        each.offset
        for each, following in zip(instructions, [*instructions[1:], None], strict=True)
        if each.opname in _BOOKKEEPING
        or (each.opname == "COPY" and following is not None and following.opname in _BOOKKEEPING)
    )


def _ask_for_opcodes() -> None:
    """Have the trace that is set next told of opcodes.

    sys.settrace of Python 3.12 sees to that only if a frame has asked before: without this the first trace of
    a process hears of none.
    """
    sys._getframe().f_trace_opcodes = True


class Striker:
    """Raises something before one bytecode of the package; a context manager.

    Parameters
    ----------
    number : int
        Before which bytecode, counted from 1; 0 for none.
    kind : type of BaseException
        What is raised.
    instead : callable, optional
        What is called there instead.
    files : tuple of Path
        Other files whose bytecodes count, too.

    Attributes
    ----------
    executed : int
        How many bytecodes came up to that one, or in all.
    place : str or None
        Where it struck.
    """

    _get_trace = staticmethod(sys.gettrace)
    _set_trace = staticmethod(sys.settrace)

    def __init__(
        self,
        number: int,
        kind: type[BaseException] = KeyboardInterrupt,
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

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        ours = file.startswith(str(_PACKAGE)) and not file.startswith(_NOT_THE_STORE)
        if self.place is not None or not (ours or file in self._files):
            return None
        bookkeeping = _bookkeeping(frame.f_code)

        def opcode(frame: FrameType, event: str, argument: object) -> Any:
            if event == "opcode" and self.place is None and frame.f_lasti not in bookkeeping:
                self._count(frame)
            return opcode

        # On Python 3.12 and newer the first opcode events come only if f_trace is set before.
        frame.f_trace = opcode
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return opcode

    def _count(self, frame: FrameType) -> None:
        self.executed += 1
        if self.executed == self._number:
            code = frame.f_code
            name = dis.opname[code.co_code[frame.f_lasti]]
            self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname} {name}"
            if self._instead is None:
                raise self._kind("struck")
            sys.settrace(None)
            self._instead()


class ThreadStriker(Striker):
    """Does so in another thread, which is started meanwhile, and is told by how its name begins."""

    _get_trace = staticmethod(threading.gettrace)
    _set_trace = staticmethod(threading.settrace)

    def __init__(self, number: int, name: str, kind: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__(number, kind)
        self._name = name

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if not threading.current_thread().name.startswith(self._name):
            sys.settrace(None)
            return None
        return super()._call(frame, event, argument)
