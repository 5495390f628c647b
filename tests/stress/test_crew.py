"""The threads of a run: whom exceptions from outside interrupt, and what is left after Ctrl-C."""

from __future__ import annotations

import _thread
import ctypes
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager
from latchstore.stress import native
from latchstore.stress.faults import Fault, InjectedError
from latchstore.stress.native import Crew, WorkerError, run_native
from latchstore.stress.workloads import PlainWorkload

resource = pytest.importorskip("resource", reason="there are no limits on the size of files")

TIMEOUT = 30.0

SET_EXCEPTION = ctypes.pythonapi.PyThreadState_SetAsyncExc

#: Seconds of a wait that may be in vain.
SHORT = 0.02


class _Call:
    """An action that calls a function."""

    name, key, argument = "call", None, None

    def __init__(self, function: Any) -> None:
        self._function = function

    def run(self, store: AbstractStore) -> None:
        self._function()


class Calling(PlainWorkload):
    name = "calling"

    def __init__(self, function: Any) -> None:
        self._function = function

    def actions(self, thread: int, seed: int) -> Iterator[Any]:
        return itertools.repeat(_Call(self._function))

    def verdicts(self, history: Any) -> dict[str, Any]:
        return {}


class Rival:
    """A thread that ends, if it can, while another one is about to interrupt it."""

    def __init__(self, place: int) -> None:
        self._left = place
        self._begun = threading.Event()
        self._let_go = threading.Event()
        self.hit: list[bool] = []
        workload = Calling(self._call)
        self._crew = Crew(DictMemoryStore(EventManager()), [workload], [], [1], 1)
        self._running = threading.Thread(target=self._crew.work, args=(TIMEOUT,), daemon=True)
        self.worker: threading.Thread

    def _call(self) -> None:
        self.worker = threading.current_thread()
        self._begun.set()
        assert self._let_go.wait(TIMEOUT)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != native.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == -1:
                self._let_go.set()
                self.worker.join(SHORT)
        return self._trace

    def set_exception(self, ident: ctypes.c_ulong, error: Any) -> None:
        """Like the original, but note whether there is still the thread."""
        if error is not None:
            self.hit.append(self.worker.is_alive())
        if self.worker.is_alive():
            SET_EXCEPTION(ident, error)

    def interrupt(self) -> bool:
        """Return whether the place was reached."""
        self._running.start()
        assert self._begun.wait(TIMEOUT)
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            self._crew.interrupt(InjectedError)
        finally:
            sys.settrace(before)
        self._let_go.set()
        self._running.join(TIMEOUT)
        assert not self._running.is_alive()
        return self._left < 0


def test_a_thread_that_has_ended_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = 0
    for place in itertools.count():
        rival = Rival(place)
        monkeypatch.setattr(ctypes.pythonapi, "PyThreadState_SetAsyncExc", rival.set_exception)
        if not rival.interrupt():
            break
        reached += 1
        assert all(rival.hit), f"the identifier of a thread that has ended, at bytecode {place}"
    assert reached > 20


class OnceFull(Fault):
    """The disk is full until somebody waits for the fault to end."""

    name = "once full"

    def __init__(self) -> None:
        super().__init__(1, lambda name: None)
        self.is_full = threading.Event()

    def disturb(self, store: AbstractStore, workers: Any) -> bool:
        if self.is_full.is_set():
            return True
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            self.is_full.set()
            time.sleep(SHORT)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return True


@pytest.mark.parametrize("end", ["a crash", "a hang", "Ctrl-C"])
def test_no_fault_goes_on_when_a_run_tells_why_it_ends(end: str) -> None:
    fault = OnceFull()
    go_on = threading.Event()

    def act() -> None:
        assert fault.is_full.wait(TIMEOUT)
        if end == "a crash":
            raise ZeroDivisionError
        if end == "Ctrl-C":
            _thread.interrupt_main()
        else:
            assert go_on.wait(TIMEOUT)

    before, limit = set(threading.enumerate()), resource.getrlimit(resource.RLIMIT_FSIZE)
    store = DictMemoryStore(EventManager())
    # A program that a shell has started in the background ignores the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else WorkerError):
            run_native(store, [Calling(act)], threads=1, operations=1, faults=[fault], timeout=2 * SHORT)
        assert resource.getrlimit(resource.RLIMIT_FSIZE) == limit
        left = [each.name for each in threading.enumerate() if each not in before]
        assert f"fault {fault.name}" not in left
    finally:
        signal.signal(signal.SIGINT, handler)
        go_on.set()
