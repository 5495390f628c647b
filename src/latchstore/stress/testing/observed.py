"""What is compared of values: their contents, in a form that can be hashed.

Thread safety: the functions keep nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from math import isnan
from typing import Any

#: Beyond this depth an object counts by its class alone.
_DEEPEST = 20


def observed(value: Any) -> object:
    """Return something that is equal for values of equal contents, and hashable.

    Numbers, strings and what else has an equality of its own and can be hashed stand for themselves;
    containers are compared item by item, the order of a dict or set apart; exceptions by class and arguments;
    other objects by class and attributes, and by class alone if they have none.
    """
    return _observed(value, ())


def _observed(value: Any, outer: tuple[object, ...]) -> object:
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        # True and 1 are told apart; so are values of subclasses, by name.
        return (kind.__name__, value) if kind is bool else value
    if isinstance(value, float) and isnan(value):
        return "nan"  # which is not equal to itself
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
    """Return those of an object, also in slots; None if it has no room for any."""
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
