"""Metadata as JSON text, strictly: what is written comes back with its types, and nothing else is written.

What plain JSON brings back as it is stands as it is: str, int, finite float, bool, None, lists, and dicts
with str keys. All else is an object with one member, whose name is a tag that begins with ``$``: a tuple is
``{"$tuple": [1, 2]}``, bytes are ``{"$bytes": "aGk="}``. A dict with a key that begins so, or that is no
str, is ``{"$dict": [[key, value], ...]}``, which leaves no object of two meanings. The metadata itself is an
object whose names may be any; it is written as a ``$dict`` if it has that one name alone, or a name that JSON
would change. A str of which JSON would join two lone surrogates is ``{"$str": [part, ...]}``.

Only exact types are written, and read by their constructors: nothing is imported or called by a name in the
text. A name twice, an unknown tag, a tag with another body than is written, nan and inf are refused.

Thread safety: functions of their arguments. No code of the user's own runs but the hash and ``==`` of what is
in sets and dicts, which is of the types above.
"""

from __future__ import annotations

import binascii
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from json.encoder import encode_basestring_ascii as quoted
from json.scanner import make_scanner
from typing import Any, NoReturn

from latchstore.contract.arguments import describe
from latchstore.contract.errors import StoreFormatError
from latchstore.contract.values import ATOMIC_TYPES, Entry, NestedEntry, is_immutable

#: How deep values in metadata may be nested: few enough for json on any stack.
DEPTH = 100

#: Brackets of the text for each level of values, at the most.
_BRACKETS = 3

#: Two code points that JSON joins to one.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BETWEEN_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")

_STORABLE = (
    "what can be are str, bytes, int, float, complex, bool, None, Decimal, UUID, date, time, datetime (with "
    "timezone, ZoneInfo or none), timedelta, and tuples, lists, dicts, sets and frozensets of these; "
    "no subclasses"
)


# -- writing ------------------------------------------------------------------------------------------


def encode_metadata(key: str, entry: Entry) -> str:
    """Return the metadata of an entry as text.

    Raises
    ------
    TypeError
        If a value is of a type that cannot be stored; names key, item and the types that can be.
    ValueError
        If a value is nested too deeply, or is an int with too many digits for ``str``; names key and item.
    """
    if not entry:
        return "{}"  # hot path: most entries have no metadata
    members: list[str] = []
    for name, value in entry.items():
        writer = _PLAIN.get(type(value))
        try:
            text = writer(value) if writer is not None else _text(value, DEPTH)
        except _UnstorableError as error:
            raise TypeError(
                f"key {key!r}: the metadata item {name!r} cannot be stored, as it has {error}; {_STORABLE}"
            ) from None
        except ValueError as error:
            raise ValueError(f"key {key!r}: the metadata item {name!r} cannot be stored: {error}") from error
        members.append(f"{quoted(name)}: {text}")
    text = ", ".join(members)
    if (text.startswith('"$dict"') and len(entry) == 1) or ("\\ud" in text and any(map(_PAIR.search, entry))):
        return _pairs(entry, DEPTH)
    return f"{{{text}}}"


class _UnstorableError(Exception):
    """A value is of no type that can be stored; the message names the value."""


def _string(value: str) -> str:
    text = quoted(value)
    if "\\ud" in text and _PAIR.search(value):
        return _tag("str", _list(map(quoted, _BETWEEN_PAIR.split(value))))
    return text


def _real(value: float) -> str:
    return float.__repr__(value) if math.isfinite(value) else _tag("float", f'"{value!r}"')


#: How what JSON has by itself is written. Exact types.
_PLAIN: dict[type, Callable[[Any], str]] = {
    str: _string,
    int: int.__repr__,
    float: _real,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


def _text(value: Any, depth: int) -> str:
    """Return a value as text."""
    kind = type(value)
    writer = _PLAIN.get(kind) or _SCALARS.get(kind)
    if writer is not None:
        return writer(value)
    nested = _NESTED.get(kind)
    if nested is None:
        return _late(value, kind)
    if not depth:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    return nested(value, depth - 1)


def _late(value: Any, kind: type) -> str:
    """Return a value of a class whose module is not imported here: who has one has imported it."""
    if kind is getattr(sys.modules.get("decimal"), "Decimal", None):
        # The context of the thread decides between "e" and "E".
        return _tag("decimal", quoted(str(value).replace("e", "E")))
    if kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return _tag("uuid", f'"{value!s}"')
    raise _UnstorableError(describe(value))


def _tag(name: str, body: str) -> str:
    return f'{{"${name}": {body}}}'


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(texts)}]"


def _items(values: Iterable[Any], depth: int) -> str:
    return _list([_text(value, depth) for value in values])


def _pairs(items: dict[Any, Any], depth: int) -> str:
    return _tag(
        "dict", _list([f"[{_text(name, depth)}, {_text(value, depth)}]" for name, value in items.items()])
    )


def _dict(items: dict[Any, Any], depth: int) -> str:
    for name in items:
        if type(name) is not str or name.startswith("$") or _PAIR.search(name):
            return _pairs(items, depth)
    return f"{{{', '.join([f'{quoted(name)}: {_text(value, depth)}' for name, value in items.items()])}}}"


def _in_order(values: Iterable[Any], depth: int) -> str:
    """Return the items of a set in an order that depends on nothing but them."""
    return _list(sorted([_text(value, depth) for value in values]))


#: How a value with others in it is written, and how deep these may be nested yet.
_NESTED: dict[type, Callable[[Any, int], str]] = {
    list: _items,
    dict: _dict,
    tuple: lambda value, depth: _tag("tuple", _items(value, depth)),
    set: lambda value, depth: _tag("set", _in_order(value, depth)),
    frozenset: lambda value, depth: _tag("frozenset", _in_order(value, depth)),
}


def _parts(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _moment(name: str, value: datetime | time) -> str:
    zone = value.tzinfo
    body = [value.replace(tzinfo=None, fold=0).isoformat()]
    if zone is None and not value.fold:
        return _tag(name, quoted(body[0]))
    return _tag(name, _text([*body, value.fold, _zone(zone)], DEPTH))


def _zone(zone: tzinfo | None) -> Any:
    """Return what stands for a time zone: a ZoneInfo's key, or an offset and perhaps a name."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [_parts(offset), *name]
    if type(zone) is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None) and zone.key is not None:  # type: ignore[attr-defined]
        return zone.key  # type: ignore[attr-defined]
    raise _UnstorableError(f"a time zone that is no timezone and no ZoneInfo with a key: {describe(zone)}")


_SCALARS: dict[type, Callable[[Any], str]] = {
    bytes: lambda value: _tag("bytes", f'"{binascii.b2a_base64(value, newline=False).decode()}"'),
    complex: lambda value: _tag("complex", _list([_real(value.real), _real(value.imag)])),
    date: lambda value: _tag("date", quoted(value.isoformat())),
    datetime: lambda value: _moment("datetime", value),
    time: lambda value: _moment("time", value),
    timedelta: lambda value: _tag("timedelta", _list(map(str, _parts(value)))),
}


# -- reading ------------------------------------------------------------------------------------------


def decode_metadata(text: object, key: str = "", *, tags: bool = True) -> Entry:
    """Return an entry, without data and times, with the metadata that a text has.

    Parameters
    ----------
    text : str
    key : str
        The key that it is of, for the error.
    tags : bool
        Whether there are tags: not in the first format, where an object is a dict whatever its names are.

    Raises
    ------
    StoreFormatError
        If it is not what `encode_metadata` could have written, up to spaces and the order of members.
    """
    if text == "{}":
        return Entry()  # hot path: most entries have no metadata
    plain = True
    try:
        if type(text) is not str:
            raise TypeError(f"it is {describe(text)} and no text")
        items = _parsed(text)
        if tags and len(items) == 1 and "$dict" in items:
            items, plain = _tagged(items, DEPTH + 1), False
            if not all(type(name) is str for name in items):
                raise TypeError("a name is no text")
        elif not _EXACT.issuperset(map(type, items.values())):
            plain = False
            _decode_values(items, tags)
    except RecursionError:
        if str(text).count("[") + str(text).count("{") <= _BRACKETS * DEPTH:
            raise  # the fault of the caller's stack
        raise StoreFormatError(f"the metadata of {key!r} cannot be: it is nested too deeply") from None
    except _DAMAGE as error:
        raise StoreFormatError(f"the metadata of {key!r} cannot be: {error}") from error
    return Entry(items) if plain or all(map(is_immutable, items.values())) else NestedEntry(items)


def _decode_values(items: dict[str, Any], tags: bool) -> None:
    for name, value in items.items():
        if type(value) not in _EXACT:
            items[name] = _value(value, tags, DEPTH)


#: What is raised by constructors that are given what they have not written.
_DAMAGE = (ValueError, TypeError, ArithmeticError, LookupError, OSError)

#: What JSON brings back and needs no second look.
_EXACT = ATOMIC_TYPES - {float}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; refuse one with a name twice, which no dict comes to."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    """Refuse nan and inf, which JSON does not have."""
    raise ValueError(f"it has {name}")


_decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)
# hot path: `decode` takes three times as long.
_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_decoder)  # type: ignore[arg-type]


def _parsed(text: str) -> dict[str, Any]:
    try:
        items, end = _scan(text, 0)
    except StopIteration:
        end = -1
    if end != len(text):
        items = _decoder.decode(text)  # others may have written spaces around it
    if type(items) is not dict:
        raise TypeError(f"it is {describe(items)} and no object")
    return items


def _value(value: Any, tags: bool, depth: int) -> Any:
    """Return what a value of JSON stands for."""
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif kind is list or kind is dict:
        if not depth:
            raise ValueError(f"it is nested more than {DEPTH} deep")
        if kind is list:
            return [_value(each, tags, depth - 1) for each in value]
        if tags and any(name.startswith("$") for name in value):
            return _tagged(value, depth)
        return {name: _value(each, tags, depth - 1) for name, each in value.items()}
    return value


def _tagged(value: dict[str, Any], depth: int) -> Any:
    """Return what an object with a tag stands for."""
    if len(value) != 1:
        raise ValueError(f"an object with a tag has {len(value)} members")
    ((tag, body),) = value.items()
    nested = _READ_NESTED.get(tag)
    if nested is not None:
        return nested([_value(each, True, depth - 1) for each in _checked(list, body)])
    if tag == "$dict":
        return _from_pairs([_pair(each, depth - 1) for each in _checked(list, body)])
    reader = _READ.get(tag)
    if reader is None:
        raise ValueError(f"the tag {describe(tag)} is unknown")
    found = reader(body)
    if _text(found, DEPTH) != _text_of_tag(tag, body):
        raise ValueError(f"{describe(body)} is not as {tag} is written")
    return found


def _text_of_tag(tag: str, body: Any) -> str:
    return f'{{"{tag}": {json.dumps(body)}}}'


def _checked(kind: type, body: Any) -> Any:
    if type(body) is not kind:
        raise TypeError(f"{describe(body)} is no {kind.__name__}")
    return body


def _pair(each: Any, depth: int) -> tuple[Any, Any]:
    name, value = _checked(list, each)
    return _value(name, True, depth), _value(value, True, depth)


def _from_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return _distinct(pairs)


def _set_of(kind: type) -> Callable[[list[Any]], Any]:
    def read(items: list[Any]) -> Any:
        found = kind(items)
        if len(found) != len(items):
            raise ValueError("an item of a set is there twice")
        return found

    return read


_READ_NESTED: dict[str, Callable[[list[Any]], Any]] = {
    "$tuple": tuple,
    "$set": _set_of(set),
    "$frozenset": _set_of(frozenset),
}


def _read_float(body: Any) -> float:
    return float(_checked(str, body))


def _read_complex(body: Any) -> complex:
    real, imaginary = (_value(part, True, DEPTH) for part in _checked(list, body))
    return complex(_checked(float, real), _checked(float, imaginary))


def _read_moment(kind: type[datetime] | type[time]) -> Callable[[Any], datetime | time]:
    def read(body: Any) -> datetime | time:
        if type(body) is str:
            return kind.fromisoformat(body)
        text, fold, zone = _checked(list, body)
        return kind.fromisoformat(_checked(str, text)).replace(
            fold=_checked(int, fold), tzinfo=_read_zone(zone)
        )

    return read


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if type(zone) is str:
        from zoneinfo import ZoneInfo  # here, as few have one, and it takes long

        return ZoneInfo(zone)
    offset, *name = _checked(list, zone)
    return timezone(_read_timedelta(offset), *[_checked(str, _value(each, True, DEPTH)) for each in name])


def _read_timedelta(body: Any) -> timedelta:
    days, seconds, microseconds = (_checked(int, part) for part in _checked(list, body))
    return timedelta(days, seconds, microseconds)


def _read_decimal(body: Any) -> Any:
    from decimal import Decimal  # here, as few have one

    return Decimal(_checked(str, body))


def _read_uuid(body: Any) -> Any:
    from uuid import UUID  # here, as few have one

    return UUID(_checked(str, body))


_READ: dict[str, Callable[[Any], Any]] = {
    "$str": lambda body: "".join([_checked(str, part) for part in _checked(list, body)]),
    "$float": _read_float,
    "$complex": _read_complex,
    "$bytes": lambda body: binascii.a2b_base64(_checked(str, body), strict_mode=True),
    "$date": lambda body: date.fromisoformat(_checked(str, body)),
    "$datetime": _read_moment(datetime),
    "$time": _read_moment(time),
    "$timedelta": _read_timedelta,
    "$decimal": _read_decimal,
    "$uuid": _read_uuid,
}
