"""Locks that ``with`` never leaves acquired, whatever is raised from outside, on CPython 3.14 as elsewhere.

CPython checks for signals, exceptions from other threads and pending collections where a call returns, where
a Python function is entered and at backward jumps. On 3.11 to 3.13 the start of a ``with`` is none of these.
On 3.14 it is a call: after a lock written in C was acquired, and before the block begins, a signal handler
may raise, so the lock stays acquired forever; or it may acquire the same lock, and wait for its own thread.
See https://github.com/python/cpython/issues/148874, fixed in 3.15. `for_with` makes the locks of the store:
on 3.14 it wraps them in a `WithLock`.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

L = TypeVar("L")

#: Whether the start of a ``with`` is a place where this Python raises.
WITH_IS_A_CALL = sys.version_info[:2] == (3, 14)


class WithLock:
    """A lock written in C, acquired by an iteration instead of a call.

    ``__enter__`` is written in Python, so it can be interrupted where it is entered, before it has acquired
    anything, and nowhere else: CPython checks neither when an iterator written in C returns an item nor when
    x is the lock's own, written in C.

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
    """Return a lock that ``with`` never leaves acquired: `lock`, or on 3.14 a `WithLock` around it.

    Parameters
    ----------
    lock : lock
        Written in C.
    """
    return cast(L, WithLock(lock)) if WITH_IS_A_CALL else lock
