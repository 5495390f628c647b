"""The ways in which calls come in the middle of an operation: signals, the collector, what is freed."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, ClassVar, Self

from latchstore import DictMemoryStore
from tests.interrupts import places
from tests.interrupts.striker import Striker
from tests.interrupts.subjects import FILL, CacheSubject
from tests.reentry.caller import Caller

#: Has the interpreter call the handler of a signal where it next looks for signals.
_set_signal = ctypes.pythonapi.PyErr_SetInterruptEx

#: A signal that nothing else here uses.
_SIGNAL = getattr(signal, "SIGUSR1", signal.SIGINT)


class Way:
    """Makes calls at places that the thread passes; a context manager.

    Parameters
    ----------
    caller : Caller
    stride : int
        At each how manieth place.
    first : int
        At which place first, counted from 0.
    """

    #: Whether calls come while events are delivered, which the operation does not wait for by itself.
    needs_events: ClassVar[bool] = False

    #: For the store.
    options: ClassVar[dict[str, Any]] = {}

    #: Operations to which it cannot come.
    not_in: ClassVar[tuple[str, ...]] = ()

    #: Calls that cannot do what they are for.
    not_called: ClassVar[tuple[str, ...]] = ()

    def __init__(self, caller: Caller, stride: int, first: int) -> None:
        self._caller = caller
        self._stride = stride
        self._first = first
        self.passed = 0

    def _is_due(self) -> bool:
        """Count a place; tell whether a call comes there."""
        number = self.passed - self._first
        self.passed += 1
        return number >= 0 and number % self._stride == 0

    def prepare(self) -> None:
        """Change the store, before the operation, as the way needs it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """Make no more calls."""


class Signals(Way):
    """A signal handler, at the places where CPython runs one.

    A signal is set right before an instruction that checks for signals; the interpreter then calls the
    handler, as for one that has come from outside. Only the main thread has handlers.
    """

    def __enter__(self) -> Self:
        self._tracer = _Tracer(self._is_due, self._caller)
        self._before = signal.signal(_SIGNAL, self._handle)
        self._tracer.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._tracer.__exit__()
        # What is pending yet is for this handler, and it looks here.
        signal.signal(_SIGNAL, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == __file__:
            self._tracer.deferred = True  # the instruction has not looked for signals
        else:
            self._caller.call()


class _Tracer(Striker):
    """Sets the signal at places that are due; all of them are in the thread that has begun this.

    Attributes
    ----------
    deferred : bool
        Whether the handler was called in the trace function, where the operation is not, and is to be called
        at the next instruction that looks for signals.
    """

    def __init__(self, is_due: Callable[[], bool], caller: Caller) -> None:
        super().__init__(0, KeyboardInterrupt)
        self._is_due = is_due
        self._caller = caller
        self.deferred = False

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        # What a handler calls is not traced: there is no signal in it.
        if self._caller.turn.locked():
            return None
        due = self.deferred
        self.deferred = False
        trace = None
        if self.is_ours(frame):
            due = (places.is_entry(frame) and self._is_due()) or due
            trace = self._trace_of(frame.f_code, KeyboardInterrupt)
            if trace is not None:
                frame.f_trace = trace
                frame.f_trace_lines = False
                frame.f_trace_opcodes = True
        setting = map(_set_signal, [int(_SIGNAL)]) if due else ()
        # Iterating this sets the signal; no check comes from here to the instruction that is traced.
        [*setting]
        return trace

    def _trace_of(self, code: CodeType, kind: type[BaseException]) -> Any:
        checked = places.checks(code)
        if not checked:
            return None

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if self._caller.turn.locked():
                return trace
            due = self.deferred
            self.deferred = False
            if event == "opcode" and frame.f_lasti in checked:
                due = self._is_due() or due
            setting = map(_set_signal, [int(_SIGNAL)]) if due else ()
            [*setting]
            return trace

        return trace


class _Cycle:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.me = self


class _WithFinalizer(_Cycle):
    """The same, with a finalizer."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call

    def __del__(self) -> None:
        self.call()


class Collector(Way):
    """The cyclic garbage collector, which begins a collection wherever it can, each with some garbage.

    That is at every allocation of an object that it tracks; since Python 3.12 where the interpreter next
    looks for signals. The garbage has a finalizer, or a ``weakref.finalize``, or a callback of a weak
    reference, by turns.
    """

    #: How the name of the thread begins in which calls are made; None for the one that begins this.
    _in_thread: ClassVar[str | None] = None

    def __enter__(self) -> Self:
        self._here = threading.get_ident()
        self._kept: list[Any] = []
        self._references: list[Any] = []
        self._kinds = (self._garbage, self._finalized, self._referred_to)
        self._made = 0
        self._before = gc.isenabled(), gc.get_threshold()
        gc.freeze()  # garbage of others as well
        gc.collect()  # free lists, from which objects come that no collection begins with
        gc.callbacks.append(self._collecting)
        gc.set_threshold(1, 1_000_000, 1_000_000)
        gc.enable()
        return self

    def __exit__(self, *details: object) -> None:
        gc.disable()
        gc.callbacks.remove(self._collecting)
        enabled, threshold = self._before
        gc.set_threshold(*threshold)
        gc.unfreeze()
        self._kept.clear()
        self._references.clear()
        if enabled:
            gc.enable()

    def _collecting(self, phase: str, details: dict[str, int]) -> None:
        if self._caller.turn.locked() or self._caller.wrong:
            return
        if phase == "stop":
            # So that the next allocation of a tracked object exceeds the threshold.
            self._kept += [[], [], []]
        elif self._is_here() and self._is_due():
            self._made += 1
            self._kinds[self._made % 3]()

    def _is_here(self) -> bool:
        if self._in_thread is None:
            return threading.get_ident() == self._here
        return threading.current_thread().name.startswith(self._in_thread)

    def _garbage(self) -> None:
        _WithFinalizer(self._caller.call)

    def _finalized(self) -> None:
        weakref.finalize(_Cycle(), self._caller.call).atexit = False

    def _referred_to(self) -> None:
        self._references = [weakref.ref(_Cycle(), lambda reference: self._caller.call())]


class CollectorElsewhere(Collector):
    """The same, in the thread that calls listeners."""

    _in_thread = "latchstore-events"
    needs_events = True


class Freed(Way):
    """The finalizers of what is stored: values and metadata, and the copies that were handed out.

    Nothing else holds what is replaced: the store has no history, and nobody watches it. The last to have it
    is the thread that calls listeners, mostly.
    """

    options: ClassVar[dict[str, Any]] = {"history": 0}
    # What has finalizers cannot be saved, is a change already, and has a weight.
    not_in = ("save", "load", "watch", "evict, if_revision", "cache: set, too heavy")
    not_called = ("save", "load")
    needs_events = True
    _live = False

    def prepare(self) -> None:
        subject = self._caller.subject
        if isinstance(subject, CacheSubject) and not subject.is_shared:
            subject.cache.set("goes", _Stored(self), ttl=100.0)
            subject.cache.set("moves", _Stored(self))
        else:
            store: DictMemoryStore = subject.store
            for key in FILL:
                store.update_metadata(key, {"freed": _Stored(self)})
        subject.store.flush()
        subject.heard.clear()
        subject.watch.close()

    def __enter__(self) -> Self:
        self._live = True
        return self

    def __exit__(self, *details: object) -> None:
        self._live = False

    def free(self) -> None:
        """Be told of an object that was freed."""
        if self._live and not self._caller.turn.locked() and self._is_due():
            self._caller.call()


class _Stored:
    """A value that is copied and freed."""

    def __init__(self, way: Freed) -> None:
        self._way = way

    def __deepcopy__(self, memo: object) -> _Stored:
        return _Stored(self._way)

    def __reduce__(self) -> Any:
        return (str, ("stored",))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stored)

    def __hash__(self) -> int:
        return 1

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._way.free()


#: All of them, by name.
WAYS: dict[str, type[Way]] = {
    "signal handler": Signals,
    "collector": Collector,
    "collector, in the thread of events": CollectorElsewhere,
    "finalizer of what is stored": Freed,
}
