"""Striking each operation at every place where CPython can raise, and running it near the recursion limit."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.interrupts.checks import check, outcomes_of
from tests.interrupts.helper import shown
from tests.interrupts.operations import OPERATIONS, subject_for
from tests.interrupts.striker import Striker
from tests.interrupts.subjects import TIMEOUT, Subject

#: Of how many places one is struck; 1 for each of them.
STRIDE = int(os.environ.get("LATCHSTORE_STRIKE_EVERY", "50"))

#: Operations with no more places than that are struck at each of them all the same.
SHORT = 10

#: Operations with many more are struck at so many of their places, unless at each.
MOST = 5

#: What is raised.
KINDS = (KeyboardInterrupt, SystemExit, MemoryError, RecursionError)

#: How many frames are left at most when an operation is run near the recursion limit.
FRAMES = 60


@dataclass
class Count:
    """What a judge has counted of one operation.

    Attributes
    ----------
    struck : int
        How many exceptions were raised.
    wrong : list of str
        Where something was wrong after one, and what.
    """

    struck: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        """Count what another one has counted."""
        self.struck += other.struck
        self.wrong += other.wrong


def exhaust(name: str, other: ThreadPoolExecutor, stride: int = STRIDE) -> Count:
    """Strike an operation at every `stride`-th of its places or fewer, each time with a new store.

    Parameters
    ----------
    name : str
        Of one of `OPERATIONS`.
    other : ThreadPoolExecutor
        Another thread, which looks what is left.
    stride : int
        Where the first strike falls depends on the name, so that not all operations begin with the same.
    """
    count = Count()
    # Those from outside are raised at the same places: in the usual run each operation has one of the two.
    from_outside = KINDS[zlib.crc32(name.encode()) % 2]
    for kind in KINDS if stride == 1 else (from_outside, *KINDS[2:]):
        places = places_of(name, kind)
        step = 1 if places <= SHORT else min(stride, places // 3)
        if stride > 1:
            step = max(step, places // MOST)
        for number in range(1 + zlib.crc32(name.encode()) % step, places + 1, step):
            place, wrong = damage_of(name, number, kind, other)
            count.struck += place is not None
            if wrong is not None:
                count.wrong.append(f"{name}, {kind.__name__} at {number}: {place}: {wrong}")
    return count


def places_of(name: str, kind: type[BaseException]) -> int:
    """Return how many places an operation passes in the calling thread."""
    outcomes_of(name)
    subject = subject_for(name)
    # None of those that would be struck, which may be fewer, as threads take turns.
    with Striker(0, kind) as striker:
        OPERATIONS[name](subject)
    subject.store.close(TIMEOUT)
    return striker.executed


def damage_of(
    name: str, number: int, kind: type[BaseException], other: ThreadPoolExecutor
) -> tuple[str | None, str | None]:
    """Strike an operation once; return where, and what is wrong then."""
    subject = subject_for(name)
    striker = Striker(number, kind)
    try:
        with striker:
            OPERATIONS[name](subject)
    except BaseException as error:
        if not comes_from(error, kind):
            raise
    if striker.place is None:
        subject.store.close(TIMEOUT)
        return None, None
    try:
        check(name, subject, other)
    except Exception as error:
        return striker.place, f"{shown(error)}"
    return striker.place, None


def comes_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Tell whether an error is of a kind, or was made of one that is: a codec names its key."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def with_frames_left(left: int, call: Callable[[], object]) -> None:
    """Call something where only so many more calls can be made."""

    def descend(frames: int) -> None:
        if frames > 0:
            descend(frames - 1)
        else:
            call()

    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    descend(sys.getrecursionlimit() - depth - left)


def recurse(name: str, other: ThreadPoolExecutor, stride: int = 1) -> Count:
    """Run an operation at every `stride`-th depth near the recursion limit, each time with a new store."""
    outcomes_of(name)
    count = Count()
    for left in range(1 + zlib.crc32(name.encode()) % stride, FRAMES, stride):
        subject = subject_for(name)
        if _has_room(left, name, subject):
            subject.store.close(TIMEOUT)
            continue
        count.struck += 1
        try:
            check(name, subject, other)
        except Exception as error:
            count.wrong.append(f"{name}, {left} frames left: {shown(error)}")
    return count


def _has_room(left: int, name: str, subject: Subject) -> bool:
    """Run an operation with so many frames left; tell whether they were enough.

    Nothing is looked at in here: the traceback holds what the operation was about.
    """
    try:
        with_frames_left(left, lambda: OPERATIONS[name](subject))
    except Exception:  # RecursionError, or what the operation makes of it
        return False
    return True
