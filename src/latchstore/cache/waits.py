"""Detects what a thread waits for, as far as its stack shows it.

A loader that hands work to another thread and waits for it may wait for a thread that waits for the load. Two
kinds of wait prove a circle: waiting for a future whose call this thread runs, and joining this thread. Other
waits prove nothing, as any thread may release a lock or fill a queue. Without the GIL nothing is checked.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from latchstore.contract.frames import frames_of_threads

#: The modules of the innermost frames of a waiting thread.
_POOLS = "concurrent.futures.thread"
_WAITING = ("threading", "concurrent.futures._base", _POOLS)


def place_of(thread: threading.Thread) -> str:
    """Return where a thread is, for error messages."""
    frame = None if thread.ident is None else frames_of_threads().get(thread.ident)
    return "no longer running" if frame is None else _place(frame)


def waits_for_this_thread(first: int | None, loaders: Mapping[int | None, int | None]) -> str | None:
    """Return where a thread waits, if that wait cannot end before this thread continues; else None.

    Parameters
    ----------
    first : int or None
        The identifier of the thread.
    loaders : mapping
        Maps a thread that waits for a load to the thread that runs the load, by identifier.
    """
    has_gil = getattr(sys, "_is_gil_enabled", None)
    if has_gil is not None and not has_gil():
        return None  # stacks of running threads must not be read without the GIL
    frames = frames_of_threads()
    try:
        return _way_back(first, loaders, frames)
    finally:
        frames.clear()  # it contains this frame, which refers to it


def _way_back(
    first: int | None, loaders: Mapping[int | None, int | None], frames: Mapping[int, FrameType]
) -> str | None:
    """Follow the waits; return the place of the thread that waits for this one."""
    me = threading.get_ident()
    seen: set[int] = set()
    waiting = [first]
    while waiting:
        ident = waiting.pop()
        if ident is None or ident in seen or ident not in frames:
            continue
        seen.add(ident)
        next_ones = [loaders[ident]] if ident in loaders else list(_awaited(frames[ident], frames))
        if me in next_ones:
            return _place(frames[ident])
        waiting.extend(next_ones)
    return None


def _awaited(frame: FrameType, frames: Mapping[int, FrameType]) -> Iterator[int | None]:
    """Yield the threads whose work a thread waits for."""
    for inner in _stack(frame):
        if inner.f_globals.get("__name__") not in _WAITING:
            return
        name, own = inner.f_code.co_name, inner.f_locals
        if name == "join" and isinstance(own.get("self"), threading.Thread):
            yield own["self"].ident
        elif name in ("result", "exception"):
            yield from _running(own.get("self"), frames)
        elif name == "wait" and own.get("return_when") == "ALL_COMPLETED":
            for future in list(own["fs"]):
                yield from _running(future, frames)


def _running(future: Any, frames: Mapping[int, FrameType]) -> Iterator[int]:
    """Yield the thread that runs the call of a future."""
    for ident, frame in frames.items():
        for inner in _stack(frame):
            runs_one = inner.f_code.co_name == "run" and inner.f_globals.get("__name__") == _POOLS
            if runs_one and getattr(inner.f_locals.get("self"), "future", None) is future:
                yield ident


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frame: FrameType) -> str:
    """Return the innermost frame outside the waiting code."""
    for inner in _stack(frame):
        if inner.f_globals.get("__name__") not in _WAITING:
            return f"in {inner.f_code.co_qualname}, {inner.f_code.co_filename}:{inner.f_lineno}"
    return "waiting"
