"""Records which locks were acquired while others were held: a cycle can deadlock, even if it never did.

The idea is that of the lock-order graphs of Havelund, "Using runtime analysis to guide model checking of Java
programs" (SPIN 2000, section 2.1), with locks by identity.

Thread safety: many threads may call `LockOrder.note`; it reads before it writes, and a write sets one item of
a dict.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from latchstore.engine.locks import ReadWriteLock
from latchstore.stress.result import LockEdge, Problem

#: Modules whose frames are skipped when a lock's place is determined, as they implement locks.
_INNER = (
    "threading",
    "queue",
    "contextlib",
    "readerwriterlock.",
    "latchstore.contract.frames",
    "latchstore.contract.with_lock",
    "latchstore.delivery.waiting",
    "latchstore.engine.locks",
    "latchstore.stress.",
)


class NamedLock(Protocol):
    """A lock with the place where it was made.

    Attributes
    ----------
    label : str
        The place.
    owner : object
        The reader/writer lock that it is, or is a part of, otherwise itself. The order of parts of one lock
        does not count, as only their library defines it.
    """

    @property
    def label(self) -> str: ...

    @property
    def owner(self) -> object: ...


def frame_outside(frame: FrameType | None) -> FrameType | None:
    """Return the first frame, from a frame outwards, outside the lock implementations."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_INNER):
        frame = frame.f_back
    return frame


def place_of(frame: FrameType | None) -> str:
    """Return a text for the place of a frame."""
    if frame is None:
        return "not in the code under test"
    code = frame.f_code
    return f"{Path(code.co_filename).name}:{frame.f_lineno} in {code.co_qualname}"


def maker_of(frame: FrameType) -> tuple[object | None, str]:
    """Return the reader/writer lock that a new lock is a part of, if any, and the place where it is made.

    Parameters
    ----------
    frame : FrameType
        The frame of the code that makes the lock.
    """
    owner = frame.f_locals.get("self")
    outside = place_of(frame_outside(frame))
    if hasattr(owner, "gen_rlock") and hasattr(owner, "gen_wlock"):
        return owner, f"{type(owner).__name__}, {outside}"
    return None, outside


class WholeLock:
    """A reader/writer lock, as one node of the graph."""

    def __init__(self, owner: object, label: str) -> None:
        self.owner = owner
        self.label = label


class NotingHandle:
    """A handle of a reader/writer lock that records when a thread holds the lock, for reading or writing.

    The parts of such a lock do not show that: the first reader acquires a part that the last reader releases,
    so a thread may seem to hold it long after its read.
    """

    def __init__(self, handle: Any, lock: WholeLock, begin: Callable[[NamedLock], list[NamedLock] | None]):
        self._handle = handle
        self._lock = lock
        self._begin = begin
        self._held: list[NamedLock] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def acquire(self, *args: Any, **options: Any) -> Any:
        """Acquire the lock through the handle, and record it."""
        taken = self._handle.acquire(*args, **options)
        if taken:
            self._held = self._begin(self._lock)
        return taken

    def release(self) -> None:
        """Release the lock through the handle."""
        held, self._held = self._held, None
        if held is not None and self._lock in held:
            held.remove(self._lock)
        self._handle.release()

    def __enter__(self) -> Any:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class NotingReaders(dict[object, int]):
    """The readers of a `ReadWriteLock`: adding itself acquires the lock for reading.

    Except if there is a reader of thread 0: then readers acquire a foreign lock, and are listed for lookup
    only.
    """

    def __init__(self, lock: WholeLock, begin: Callable[[NamedLock], list[NamedLock] | None]) -> None:
        super().__init__()
        self._lock = lock
        self._begin = begin
        self._held: dict[object, list[NamedLock]] = {}
        self._foreign = False

    def __setitem__(self, reader: object, thread: int) -> None:
        super().__setitem__(reader, thread)
        self._foreign = self._foreign or not thread
        held = None if self._foreign else self._begin(self._lock)
        if held is not None:
            self._held[reader] = held

    def pop(self, reader: object, *default: Any) -> Any:
        """Remove a reader, and record it."""
        held = self._held.pop(reader, None)
        if held is not None and self._lock in held:
            held.remove(self._lock)
        return super().pop(reader, *default)


def note_handles(owner: Any, label: str, begin: Callable[[NamedLock], list[NamedLock] | None]) -> bool:
    """Make a reader/writer lock record its handles; a lock of this package, its readers.

    Parameters
    ----------
    owner : object
        The lock, with ``gen_rlock`` and ``gen_wlock``.
    label : str
        The place where it is made.
    begin : callable
        Called with the lock when the calling thread has acquired it; records it in the graph and in the
        thread's list of held locks, and returns that list, or None.

    Returns
    -------
    noted : bool
        False if only the parts of the lock can be recorded: it cannot be changed, or its writers have only
        the mutex.
    """
    if isinstance(owner, ReadWriteLock):
        if not isinstance(owner.readers, NotingReaders):
            owner.readers = NotingReaders(WholeLock(owner, label), begin)
        return False
    try:
        if "gen_rlock" not in vars(owner):
            lock = WholeLock(owner, label)
            for name in ("gen_rlock", "gen_wlock"):
                setattr(owner, name, _noting(getattr(owner, name), lock, begin))
    except (AttributeError, TypeError):
        return False
    return True


def _noting(
    make: Callable[[], Any], lock: WholeLock, begin: Callable[[NamedLock], list[NamedLock] | None]
) -> Callable[[], NotingHandle]:
    return lambda: NotingHandle(make(), lock, begin)


class LockOrder:
    """The lock-order graph of one run."""

    def __init__(self) -> None:
        # Edges from a lock to a lock acquired while it was held. They keep the owners alive, so that no
        # identity is reused.
        self._edges: dict[tuple[int, int], LockEdge] = {}
        self._owners: dict[int, object] = {}

    def note(self, thread: str, held: Iterable[NamedLock], taken: NamedLock) -> None:
        """Record that a thread which holds some locks has acquired another."""
        owner = taken.owner
        for other in held:
            before = other.owner
            if before is owner or (id(before), id(owner)) in self._edges:
                continue
            self._owners[id(before)] = before
            self._owners[id(owner)] = owner
            where = place_of(frame_outside(sys._getframe(1)))
            self._edges[id(before), id(owner)] = LockEdge(other.label, taken.label, thread, where)

    def edges(self) -> Iterator[LockEdge]:
        """Return the edges."""
        return iter(self._edges.values())

    def problem(self) -> Problem | None:
        """Return a problem if there is a cycle."""
        following: dict[int, list[int]] = {}
        for before, after in self._edges:
            following.setdefault(before, []).append(after)
        for start in following:
            cycle = _cycle_through(following, start)
            if cycle is not None:
                told = [
                    f"{edge.thread} took {edge.taken} (at {edge.where}) while it held {edge.held}"
                    for edge in (
                        self._edges[before, after]
                        for before, after in zip(cycle, cycle[1:] + cycle[:1], strict=True)
                    )
                ]
                return Problem("lock order", "locks are acquired in a cycle:\n" + "\n".join(told))
        return None


def _cycle_through(following: dict[int, list[int]], start: int) -> list[int] | None:
    """Return a path from a lock back to itself, or None."""
    came_from: dict[int, int] = {}
    places = [start]
    while places:
        place = places.pop()
        for other in following.get(place, ()):
            if other == start:
                way = [place]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = place
                places.append(other)
    return None
