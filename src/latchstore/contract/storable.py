"""The types of metadata that can be stored outside this process, and how values are taken apart for that.

Every encoding accepts the same types. A value that an encoding has no form for is written as a name and
parts, which are ``str``, ``int``, ``float``, None and lists of these. Only exact types are accepted, and they
are rebuilt by their constructors: nothing is imported or called by a name that was read.

Thread safety: the functions have no state and run no user code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from latchstore.contract.arguments import describe

#: The greatest depth to which metadata may be nested, small enough for any stack.
DEPTH = 100

#: The end of the error for a value of another type.
STORABLE = (
    "storable are str, bytes, int, float, complex, bool, None, Decimal, UUID, date, time, datetime (with "
    "timezone, ZoneInfo or none), timedelta, and tuples, lists, dicts, sets and frozensets of these; "
    "no subclasses"
)

#: The errors that constructors raise for damaged parts.
DAMAGE = (ValueError, TypeError, ArithmeticError, LookupError, OSError)


class UnstorableError(Exception):
    """A value has a type that cannot be stored; the message names the value."""

    def of_item(self, key: str, name: str) -> TypeError:
        """Return the error for the user, which names key and item."""
        return TypeError(
            f"key {key!r}: the metadata item {name!r} cannot be stored, as it has {self}; {STORABLE}"
        )


def too_deep() -> ValueError:
    """Return the error for a value that is nested too deeply."""
    return ValueError(f"it is nested more than {DEPTH} deep")


# -- writing ------------------------------------------------------------------------------------------


def parts_of(value: Any) -> tuple[str, Any]:
    """Return the name of a value's type, and its parts; raise UnstorableError for other types."""
    kind = type(value)
    found = _PARTS.get(kind)
    if found is not None:
        name, parts = found
        return name, parts(value)
    # hot path: the modules are slow to import, and a caller with such a value has imported its module.
    if kind is getattr(sys.modules.get("decimal"), "Decimal", None):
        # The context of the thread decides whether str has "e" or "E".
        return "decimal", str(value).replace("e", "E")
    if kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return "uuid", str(value)
    raise UnstorableError(describe(value))


def _of_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _of_moment(value: datetime | time) -> Any:
    zone = value.tzinfo
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return text if zone is None and not value.fold else [text, value.fold, _of_zone(zone)]


def _of_zone(zone: tzinfo | None) -> Any:
    """Return the part for a time zone: a ZoneInfo's key, or an offset and optionally a name."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [_of_timedelta(offset), *name]
    if type(zone) is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None) and zone.key is not None:  # type: ignore[attr-defined]
        return zone.key  # type: ignore[attr-defined]
    raise UnstorableError(f"a time zone other than a timezone or a ZoneInfo with a key: {describe(zone)}")


_PARTS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    complex: ("complex", lambda value: [value.real, value.imag]),
    date: ("date", date.isoformat),
    datetime: ("datetime", _of_moment),
    time: ("time", _of_moment),
    timedelta: ("timedelta", _of_timedelta),
}


# -- reading ------------------------------------------------------------------------------------------


def checked(kind: type, part: Any) -> Any:
    """Return a part if it has the type; raise TypeError otherwise."""
    if type(part) is not kind:
        raise TypeError(f"{describe(part)} is not of type {kind.__name__}")
    return part


def distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a dict; raise ValueError for a duplicate name, which a dict cannot have."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is duplicated")
    return found


def set_of(kind: type) -> Callable[[list[Any]], Any]:
    """Return a function that builds a set or frozenset and raises ValueError for duplicate items."""

    def read(items: list[Any]) -> Any:
        found = kind(items)
        if len(found) != len(items):
            raise ValueError("an item of a set is duplicated")
        return found

    return read


def _complex(parts: Any) -> complex:
    real, imaginary = checked(list, parts)
    return complex(checked(float, real), checked(float, imaginary))


def _moment(kind: type[datetime] | type[time]) -> Callable[[Any], datetime | time]:
    def read(parts: Any) -> datetime | time:
        if type(parts) is str:
            return kind.fromisoformat(parts)
        text, fold, zone = checked(list, parts)
        return kind.fromisoformat(checked(str, text)).replace(fold=checked(int, fold), tzinfo=_zone(zone))

    return read


def _zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if type(zone) is str:
        from zoneinfo import ZoneInfo  # slow to import and rarely needed

        return ZoneInfo(zone)
    offset, *name = checked(list, zone)
    return timezone(_timedelta(offset), *[checked(str, each) for each in name])


def _timedelta(parts: Any) -> timedelta:
    days, seconds, microseconds = (checked(int, part) for part in checked(list, parts))
    return timedelta(days, seconds, microseconds)


def _decimal(parts: Any) -> Any:
    from decimal import Decimal  # rarely needed

    return Decimal(checked(str, parts))


def _uuid(parts: Any) -> Any:
    from uuid import UUID  # rarely needed

    return UUID(checked(str, parts))


#: Functions that rebuild a value from its parts, by the name of its type. They may accept parts that are
#: never written, so the caller compares `parts_of` the value with the parts that it read.
READERS: dict[str, Callable[[Any], Any]] = {
    "complex": _complex,
    "date": lambda parts: date.fromisoformat(checked(str, parts)),
    "datetime": _moment(datetime),
    "time": _moment(time),
    "timedelta": _timedelta,
    "decimal": _decimal,
    "uuid": _uuid,
}
