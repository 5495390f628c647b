"""Have requests for memory fail in a program that has nothing of ours.

CPython 3.12.1, 3.13.0 and 3.13.15 crash in it: in comprehensions and generator expressions that get none.
"""

from __future__ import annotations


class Item:
    """Something with an attribute."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts = {1: 2}


def full(items: list[Item]) -> bool:
    """Go through the items in the ways that Python has."""
    known = [item for item in items if item.parts]
    return all(item.parts for item in items) and any(part for item in known for part in item.parts.values())


def main() -> None:
    """Have each request fail, and perhaps the one after it."""
    import _testcapi  # type: ignore[import-not-found]

    items = [Item() for _ in range(5)]
    for number in range(1, 80):
        for failures in (1, 2):
            _testcapi.set_nomemory(number, number + failures)
            try:
                any(full(items) for _ in range(3))
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
            full(items)


if __name__ == "__main__":
    main()
