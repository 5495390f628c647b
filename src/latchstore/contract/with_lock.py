"""Locks for ``with`` that no exception from outside leaves taken, on CPython 3.14 as on all others.

CPython looks for signals, exceptions of other threads and work of the collector where a call returns, where a
Python function is entered and at backward jumps. On 3.11 to 3.13 the beginning of a ``with`` is none of
these. On 3.14 it is a call like any other: after a lock written in C was taken, and before the block begins,
a signal handler may raise, and the lock stays taken for ever; or it may want the same lock, and wait for its
own thread. https://github.com/python/cpython/issues/148874 is about that; 3.15 is free of it. Locks of the
store are made by `for_with`, which puts a `WithLock` in between on 3.14.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

L = TypeVar("L")

#: Whether the beginning of a ``with`` is a place where this Python raises.
WITH_IS_A_CALL = sys.version_info[:2] == (3, 14)


class WithLock:
    """A lock written in C, taken by an iteration in place of a call.

    ``__enter__`` is Python, and can be struck where it is entered, before it has taken anything, and nowhere
    else: CPython looks for nothing when an iterator written in C returns an item, nor when a Python function
    returns. ``__exit__`` is the lock's own, written in C.

    Parameters
    ----------
    lock : lock
        A ``threading.Lock``, or a ``threading.RLock``, which has the method `locked` from 3.14 on.
    """

    __slots__ = ("__exit__", "_taking", "acquire", "locked", "release")

    def __init__(self, lock: Any) -> None:
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self.locked: Callable[[], bool] = lock.locked
        self._taking: Iterator[bool] = map(lock.acquire, repeat(True))
        self.__exit__: Callable[..., None] = lock.__exit__

    def __enter__(self) -> None:
        for _ in self._taking:
            return


def for_with(lock: L) -> L:
    """Return a lock that ``with`` never leaves taken: the given one, or on 3.14 a `WithLock` of it.

    Parameters
    ----------
    lock : lock
        Written in C.
    """
    return cast(L, WithLock(lock)) if WITH_IS_A_CALL else lock
