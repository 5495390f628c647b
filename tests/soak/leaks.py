"""What the interpreter leaks when memory fails: objects that are there though nobody refers to them.

CPython forgets to give back some references where a request fails. ``python -m tests.soak.leaks`` counts them
in a program that has nothing of ours: 1 of 60 objects is left by 3.11.7; 3.12.1 crashes in it. What such an
object pins stays pinned, as it would if somebody held it.
"""

from __future__ import annotations

import gc
import sys
import weakref
from types import FrameType
from typing import Any

from latchstore.contract.frames import frames_of_threads


def leaked(*kinds: type[Any]) -> list[Any]:
    """Return the objects of some classes that can be reached from no module and no frame of a thread."""
    held = _reachable()
    return [each for each in gc.get_objects() if isinstance(each, kinds) and id(each) not in held]


def _reachable() -> set[int]:
    """Return the identities of all objects that can be reached."""
    seen: set[int] = set()
    found: list[Any] = [sys.modules]
    for frame in frames_of_threads().values():
        found += _of_stack(frame)
    while found:
        for each in gc.get_referents(found.pop()):
            if id(each) not in seen:
                seen.add(id(each))
                found.append(each)
    return seen


def _of_stack(frame: FrameType | None) -> list[object]:
    """Return what the variables of a thread's frames have; frames that run do not tell the collector."""
    variables: list[object] = []
    while frame is not None:
        variables.append(frame.f_locals)
        frame = frame.f_back
    return variables


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
