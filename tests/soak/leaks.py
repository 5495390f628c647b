"""What the interpreter leaks when memory fails: objects that are there though nobody refers to them.

CPython forgets to give back some references where a request fails. ``python -m tests.soak.leaks`` counts them
in a program that has nothing of ours: 1 of 60 objects is left by 3.11.7; 3.12.1 crashes in it. What such an
object pins stays pinned, as it would if somebody held it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import BuiltinMethodType, CellType, FrameType, GeneratorType, MethodType
from typing import Any

#: What is leaked along with what it refers to, and that others refer to an object by.
_PASSING = (FrameType, GeneratorType, MethodType, BuiltinMethodType, CellType, tuple)


def leaked(kind: type[Any], unless: Callable[[Any], bool]) -> list[Any]:
    """Return the objects of a class to which nothing refers, while no thread runs that may hold one."""
    found = [each for each in gc.get_objects() if isinstance(each, kind) and not unless(each)]
    return [each for each in found if not _is_held(each, {id(found)})]


def _is_held(item: object, seen: set[int]) -> bool:
    """Tell whether anything refers to an object, but for what has been seen and for what is leaked itself."""
    referrers = gc.get_referrers(item)
    seen |= {id(item), id(referrers)}
    for referrer in referrers:
        if id(referrer) in seen or _is_ours(referrer):
            continue
        if not isinstance(referrer, _PASSING) or _is_running(referrer) or _is_held(referrer, seen):
            return True
    return False


def _is_ours(referrer: object) -> bool:
    return isinstance(referrer, FrameType) and referrer.f_code in (_is_held.__code__, leaked.__code__)


def _is_running(referrer: object) -> bool:
    return isinstance(referrer, FrameType) and referrer.f_back is not None


class Item:
    """A context manager with a few methods."""

    def __init__(self) -> None:
        self.parts = {str(number): {"n": number} for number in range(20)}

    def __enter__(self) -> Item:
        return self

    def __exit__(self, *details: object) -> None:
        """Do nothing."""

    def copies(self) -> list[dict[str, int]]:
        """Return copies of its parts."""
        return [dict(self.parts[key]) for key in self.parts]


def _use(item: Item) -> int:
    with item as entered:
        return sum(part["n"] for part in entered.copies())


def count() -> tuple[int, int]:
    """Return how many objects were used while a request failed, and how many of them are left."""
    import _testcapi  # type: ignore[import-not-found]

    left = 0
    numbers = range(60)
    for number in numbers:
        item = Item()
        reference = weakref.ref(item)
        _testcapi.set_nomemory(number, number + 1)
        try:
            _use(item)
        except (MemoryError, SystemError):
            pass  # SystemError is what 3.13 makes of some
        finally:
            _testcapi.remove_mem_hooks()
        del item
        gc.collect()
        left += reference() is not None
    return len(numbers), left


if __name__ == "__main__":
    print("{} objects, {} left".format(*count()))
