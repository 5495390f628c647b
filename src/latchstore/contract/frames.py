"""The frames of all threads, by a call that cannot hang the process.

``sys._current_frames`` of CPython 3.11.0 to 3.11.11 holds the interpreter's list of threads locked while it
makes frame objects. That may begin a round of the collector, a callback of which lets other threads run. One
of them that starts a thread, ends, or sets an exception in another waits for the list and has the GIL, for
which the first one waits: the process stands still. https://github.com/python/cpython/issues/106883 is about
that.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
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
        # One call written in C: while the collector is off, no other thread runs and nothing is raised from
        # outside.
        frames: dict[int, FrameType] = tuple(map(call, _WITHOUT_COLLECTOR))[1]
    except BaseException:  # of memory, or of an audit hook
        gc.enable()
        raise
    return frames
