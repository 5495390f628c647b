"""Filters of listeners: which events a listener is called with.

A filter is a mapping of dotted paths to values. `checked_filter` copies it, and refuses one that no event of
the class can pass; `passes` compares an event with the copy.

Thread safety: a checked filter never changes. `passes` runs the ``==`` of users' values and reads attributes
of users' objects, so it is called with no lock held.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from latchstore.contract.arguments import alike, describe
from latchstore.contract.condition import Condition, fits
from latchstore.contract.events import BaseEvent, StoreModificationEvent
from latchstore.contract.glob_pattern import checked_pattern, has_wildcards, matcher
from latchstore.contract.matching import check_term
from latchstore.contract.values import ATOMIC_TYPES

logger: logging.Logger = logging.getLogger("latchstore")

#: The parts of a dotted path.
Path = tuple[str, ...]
Conditions = tuple[tuple[Path, object], ...]


class _Missing:
    """The type of the value of an attribute that is not there."""


MISSING = _Missing()
KEY: Path = ("key",)
SOURCE: Path = ("source",)

#: The module of the events of this package, whose attributes are known.
_OURS = BaseEvent.__module__


class _KeyGlob(Condition):
    """A pattern that a key must match."""

    __slots__ = ("_matches",)

    def __init__(self, pattern: str) -> None:
        self._matches = matcher(checked_pattern(pattern, "filter: 'key'"))

    def matches(self, value: Any) -> bool:
        return isinstance(value, str) and bool(self._matches(value))


def attribute(event: BaseEvent, path: Path) -> object:
    """Return what a path of attributes and items of mappings leads to, or `MISSING`."""
    try:
        value: object = getattr(event, path[0])
        if len(path) > 1:
            value = _followed(value, path[1:])
    except AttributeError:
        return MISSING
    except MemoryError:
        raise  # nothing is known of the attribute
    except Exception:
        logger.debug("Cannot read %s of %s", ".".join(path), type(event), exc_info=True)
        return MISSING
    return value


def _followed(value: object, rest: Path) -> object:
    while rest:
        if isinstance(value, Mapping) and (name := _longest_item(value, rest)) is not None:
            value = value[name]
            rest = rest[name.count(".") + 1 :]
        else:
            value = getattr(value, rest[0])
            rest = rest[1:]
    return value


def _longest_item(mapping: Mapping[Any, object], rest: Path) -> str | None:
    """Return the item that a path begins with; names of items may have dots, as ``queue.place``."""
    for count in range(len(rest), 0, -1):
        name = ".".join(rest[:count])
        if name in mapping:
            return name
    return None


def passes(event: BaseEvent, conditions: Conditions) -> bool:
    """Return whether an event passes a checked filter."""
    for path, wanted in conditions:
        value = attribute(event, path)
        if value is MISSING:
            return False
        try:
            if not fits(value, wanted):
                return False
        except RecursionError:
            # The comparison's own: it must not end the delivery to other listeners.
            logger.debug("Cannot compare %s in a filter", ".".join(path), exc_info=True)
            return False
    return True


def checked_filter(cls: type[BaseEvent], filter: Mapping[str, object] | None) -> Conditions:
    """Return a copy of a filter, with its paths split and its pattern of keys compiled.

    Raises
    ------
    TypeError
        If it is not a mapping with str keys, or a value cannot equal any value of its attribute.
    ValueError
        If no event of the class has the attribute, or the pattern of keys is too long.
    """
    if filter is None:
        return ()
    if not isinstance(filter, Mapping):
        raise TypeError(f"filter must be a mapping of attribute paths to values, got {describe(filter)}")
    return tuple(_checked_condition(cls, path, wanted) for path, wanted in list(filter.items()))


def _checked_condition(cls: type[BaseEvent], path: str, wanted: object) -> tuple[Path, object]:
    if not isinstance(path, str):
        raise TypeError(f"filter must have attribute paths (str) as keys, got {describe(path)}")
    parts = tuple(path.split("."))
    if "" in parts:
        raise ValueError(f"filter: the path {path!r} has an empty part; write it as 'metadata.state'")
    _check_name(cls, path, parts[0])
    if issubclass(cls, StoreModificationEvent):
        _check_value(cls, path, parts, wanted)
    if parts == KEY and type(wanted) is str and has_wildcards(wanted):
        return parts, _KeyGlob(wanted)
    return parts, wanted


def _check_name(cls: type[BaseEvent], path: str, name: str) -> None:
    """Refuse a path that begins with an attribute of no event of a class.

    Classes of users have any attributes, and so have those that users have derived classes from.
    """
    classes = list(_with_subclasses(cls))
    if cls is BaseEvent or any(each.__module__ != _OURS for each in classes):
        return
    known = {name for each in classes for base in each.__mro__ for name in (*vars(base), *_annotations(base))}
    if name not in known:
        advice = alike(name, [each for each in known if not each.startswith("_")])
        raise ValueError(f"filter: {cls.__name__} has no attribute {name!r} (path {path!r}); {advice}")


def _annotations(cls: type) -> Mapping[str, object]:
    # `object` has none, and no class inherits those of its base.
    return cls.__annotations__ if cls.__module__ == _OURS else {}


def _with_subclasses(cls: type[BaseEvent]) -> Iterator[type[BaseEvent]]:
    yield cls
    for each in cls.__subclasses__():
        yield from _with_subclasses(each)


def _check_value(cls: type[BaseEvent], path: str, parts: Path, wanted: object) -> None:
    """Refuse a value that no key, action or metadata item is equal to."""
    plain = type(wanted) in ATOMIC_TYPES
    if parts == KEY:
        if plain and type(wanted) is not str:
            raise TypeError(f"filter: 'key' must be a str or a pattern, got {describe(wanted)}")
    elif parts == ("action",):
        actions = sorted({each.action for each in _with_subclasses(cls) if hasattr(each, "action")})
        if plain and wanted not in actions:
            raise ValueError(
                f"filter: no {cls.__name__} has the action {wanted!r}, but one of {', '.join(actions)}"
            )
    elif parts[-1] == "metadata":
        if plain:
            raise TypeError(
                f"filter: {path!r} is a dict, got {describe(wanted)}; name an item of it, as '{path}.state'"
            )
    elif "metadata" in parts:
        check_term(path, wanted)
