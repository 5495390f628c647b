"""Objects that a cache keeps, and the store below it."""

from __future__ import annotations

from typing import Any

from latchstore import Cache


class Hostile:
    """Is equal to nothing, and fails if it is asked, pickled, copied, hashed or shown."""

    def _refuse(self, *arguments: object) -> Any:
        raise AssertionError("asked")

    __eq__ = __ne__ = __hash__ = __repr__ = __reduce_ex__ = __bool__ = __copy__ = __deepcopy__ = _refuse


class Plain:
    pass


def store_of(cache: Cache) -> Any:
    return cache.store
