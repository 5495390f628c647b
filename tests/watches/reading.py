"""What tests of watches read, and buffers without a store."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Self, TypeVar, TypeVarTuple

from latchstore import DictMemoryStore, EventManager
from latchstore.contract.values import Entry
from latchstore.contract.with_lock import WithLock
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Interest
from tests.contract.watches import read_all as read_all

TIMEOUT = 30.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Seconds that a wait takes which is meant to fail.
SHORT = 0.02


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def new_buffer(limit: int = 10, coalesce: bool = False) -> ChangeBuffer:
    return ChangeBuffer(Interest("*", {}), limit, coalesce)


def commit_of(revision: int, changes: int = 1) -> Commit:
    return Commit(revision, [(f"k{each}", None, Entry()) for each in range(changes)], None)


def taken_from(buffer: ChangeBuffer) -> list[Any]:
    return list(iter(lambda: buffer.take(0), None))


class Strike:
    """Raises KeyboardInterrupt at the n-th call of ours, or return from a call; a context manager."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> Self:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: object) -> bool:
        sys.setprofile(None)
        return exception[0] is KeyboardInterrupt

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" or "latchstore" not in frame.f_code.co_filename:
            return
        if event == "return" and frame.f_code is WithLock.__enter__.__code__:
            return  # CPython raises nothing where a Python function returns, and 3.14 relies on it
        if event == "c_return" and getattr(argument, "__name__", "") == "__enter__":
            return  # nor at the beginning of a `with`, which 3.15 tells of and earlier ones do not
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            raise KeyboardInterrupt
