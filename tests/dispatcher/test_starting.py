"""The thread is started while another one stops it: whatever the moment, that counts as started."""

from __future__ import annotations

import itertools
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from latchstore.delivery.dispatcher import EventDispatcher
from tests.dispatcher.calls import TIMEOUT, submit

#: Bytecodes after which a start that does not return waits for the thread.
LONGEST = 100


class Stop:
    """Stops a dispatcher at one bytecode of the start of its thread, and holds the thread as it ends."""

    def __init__(self, dispatcher: EventDispatcher, place: int) -> None:
        self._dispatcher = dispatcher
        self._left = place + 1
        self._is_past_deliveries = False
        self._ends = threading.Event()
        self._let_go = threading.Event()
        self.thread = threading.Thread(target=dispatcher.stop, args=(TIMEOUT,), daemon=True)

    @property
    def began(self) -> bool:
        return self.thread.ident is not None

    def trace_start(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace the thread that starts the other one."""
        if frame.f_code.co_name != "_start" or "dispatcher" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        started: threading.Thread | None = frame.f_locals.get("thread")
        if event == "opcode" and started is not None and started.ident is not None:
            self._left -= 1
            if self._left == 0:
                while not self._dispatcher.running:
                    assert started.is_alive()
                self.thread.start()
                assert self._ends.wait(TIMEOUT)
        # It may wait until the other one has ended.
        if event == "return" or self._left < -LONGEST:
            self._let_go.set()
        return self.trace_start

    def trace_run(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace the thread that delivers."""
        name = frame.f_code.co_name
        if name == "_deliver_until" and event == "return":
            self._is_past_deliveries = True
        elif name == "_run" and event == "opcode" and self._is_past_deliveries and not self._ends.is_set():
            self._ends.set()
            assert self._let_go.wait(TIMEOUT)
        frame.f_trace_opcodes = name == "_run"
        return self.trace_run if name in ("_run", "_deliver_until") else None


def test_a_thread_that_is_stopped_while_it_is_started(caplog: pytest.LogCaptureFixture) -> None:
    places = 0
    for place in itertools.count():
        dispatcher = EventDispatcher()
        heard: list[int] = []
        stop = Stop(dispatcher, place)
        before = sys.gettrace(), threading.gettrace()
        threading.settrace(stop.trace_run)
        sys.settrace(stop.trace_start)
        try:
            submit(dispatcher, lambda: heard.append(place))  # noqa: B023
        finally:
            sys.settrace(before[0])
            threading.settrace(before[1])
        if not stop.began:
            dispatcher.stop(TIMEOUT)
            break
        stop.thread.join(TIMEOUT)
        assert not stop.thread.is_alive()
        assert heard == [place]
        places += 1
    assert places > 10
    assert not caplog.records
