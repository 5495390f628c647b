"""Before a fork the threads are listed; that must keep nothing of theirs."""

from __future__ import annotations

import sys
import threading
import weakref
from types import FrameType
from typing import Any

from latchstore.contract import frames

TIMEOUT = 20.0


class Local:
    """What a function of another thread has in a variable."""


def test_a_function_that_ends_while_threads_are_listed_is_freed() -> None:
    """Else a transaction that an exception has ended there would still be open for its thread's next call."""
    variables: list[weakref.ref[Local]] = []
    begin, begun, go, ended = (threading.Lock() for _ in range(4))
    for lock in (begin, begun, go, ended):
        lock.acquire()

    def function() -> None:
        local = Local()
        variables.append(weakref.ref(local))
        begun.release()
        go.acquire(timeout=TIMEOUT)

    def work() -> None:
        while begin.acquire(timeout=TIMEOUT) and not over:
            function()
            ended.release()

    def at_each_event(frame: FrameType, event: str, argument: Any) -> None:
        """Let the function end, look for its variable, and let the next call begin."""
        go.release()
        assert ended.acquire(timeout=TIMEOUT)
        kept.append(variables[-1]() is not None)
        begin.release()
        assert begun.acquire(timeout=TIMEOUT)

    over: list[bool] = []
    kept: list[bool] = []
    thread = threading.Thread(target=work, name="other")
    thread.start()
    begin.release()
    assert begun.acquire(timeout=TIMEOUT)
    try:
        sys.setprofile(at_each_event)
        found = frames.identifiers_of_threads()
    finally:
        sys.setprofile(None)
        over.append(True)
        go.release()
        begin.release()
        thread.join(TIMEOUT)
    assert found == set(frames.frames_of_threads()) | {thread.ident}
    assert len(kept) > 2
    assert not any(kept)
