"""Converts values to a hashable form for comparison by contents.

Thread safety: the functions have no state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from math import isnan
from typing import Any

#: Objects nested deeper than this are compared by class only.
_DEEPEST = 20


def observed(value: Any) -> object:
    """Return a hashable object that is equal for values of equal contents.

    Numbers, strings and other hashable values with an equality of their own stand for themselves; containers
    are compared item by item, dicts and sets without order; exceptions by class and arguments; other objects
    by class and attributes, or by class only if they have none.
    """
    return _observed(value, ())


def _observed(value: Any, outer: tuple[object, ...]) -> object:
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        # True and 1 differ; so do values of subclasses, by name.
        return (kind.__name__, value) if kind is bool else value
    if isinstance(value, float) and isnan(value):
        return "nan"  # not equal to itself
    if len(outer) > _DEEPEST or any(each is value for each in outer):
        return kind.__qualname__
    outer = (*outer, value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        items = [(_observed(key, outer), _observed(item, outer)) for key, item in value.items()]
        return kind.__qualname__, tuple(items) if isinstance(value, OrderedDict) else frozenset(items)
    if isinstance(value, Set):
        return kind.__qualname__, frozenset(_observed(item, outer) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return kind.__qualname__, tuple(_observed(item, outer) for item in value)
    if isinstance(value, BaseException):
        return kind.__qualname__, tuple(_observed(item, outer) for item in value.args)
    if getattr(kind, "__eq__", None) is not object.__eq__ and _is_hashable(value):
        return value
    attributes = attributes_of(value)
    if attributes is None:
        return kind.__qualname__
    return kind.__qualname__, frozenset((name, _observed(item, outer)) for name, item in attributes.items())


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def attributes_of(value: Any) -> dict[str, object] | None:
    """Return an object's attributes, also those in slots; None if it cannot have any."""
    found: dict[str, object] | None = None
    if hasattr(value, "__dict__"):
        found = dict(vars(value))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            found = {} if found is None else found
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found
