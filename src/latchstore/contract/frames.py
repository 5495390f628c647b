"""The frames of all threads, read in a way that cannot hang the process.

``sys._current_frames`` of CPython 3.11.0 to 3.11.11 holds the lock of the interpreter's thread list while it
creates frame objects. That may start the garbage collector, whose callbacks let other threads run. A thread
that then starts a thread, ends, or sets an exception in another thread waits for the list while it holds the
GIL, for which the first thread waits: a deadlock. See https://github.com/python/cpython/issues/106883.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import chain
from operator import call
from types import FrameType
from typing import Any

#: Whether the collector may run while the list of threads is locked.
COLLECTS_MEANWHILE = sys.version_info < (3, 11, 12)

_WITHOUT_COLLECTOR: tuple[Callable[[], Any], ...] = (gc.disable, sys._current_frames, gc.enable)


def frames_of_threads() -> dict[int, FrameType]:
    """Return the innermost frame of each thread, by the identifier of the thread."""
    if not COLLECTS_MEANWHILE or not gc.isenabled():
        return sys._current_frames()
    try:
        # One call written in C: while the collector is off, no other thread runs and no exception comes from
        # outside.
        frames: dict[int, FrameType] = tuple(map(call, _WITHOUT_COLLECTOR))[1]
    except BaseException:  # a MemoryError, or an error of an audit hook
        gc.enable()
        raise
    return frames


def identifiers_of_threads() -> frozenset[int]:
    """Return the identifiers of all threads.

    The frames are dropped before any other thread runs: a frame that another thread leaves meanwhile would
    keep its variables, and a transaction among them would stay open (rule 6 of engine/transaction.py).
    """
    collects = COLLECTS_MEANWHILE and gc.isenabled()
    calls = _WITHOUT_COLLECTOR if collects else (sys._current_frames,)
    try:
        # One call written in C, as above; what switches the collector returns None.
        return frozenset(chain.from_iterable(filter(None, map(call, calls))))
    except BaseException:
        if collects:
            gc.enable()
        raise
