"""Encode metadata as strict JSON text that keeps types.

Values that plain JSON keeps are written as such: str, int, finite float, bool, None, lists, and dicts with
str keys. Any other value is an object with one member, whose name is a tag that begins with ``$``: a tuple is
``{"$tuple": [1, 2]}``, bytes are ``{"$bytes": "aGk="}``. A dict with a key that begins with ``$`` or is not a
str is ``{"$dict": [[key, value], ...]}``, so no object is ambiguous. The metadata itself is an object with
any names; it is written as a ``$dict`` if ``$dict`` is its only name, or if JSON would change a name. A str
in which JSON would join two lone surrogates is ``{"$str": [part, ...]}``.

Only exact types are written. They are read by their constructors: nothing is imported or called by a name in
the text. Duplicate names, unknown tags, tags whose body is not in the form written here, nan and inf raise.

Thread safety: the functions have no state. They run no user code: the hashes and ``==`` of items of sets and
dicts are those of the types above.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress, repeat
from json.encoder import c_make_encoder  # type: ignore[attr-defined]
from json.encoder import encode_basestring_ascii as quoted
from json.scanner import make_scanner
from operator import contains, is_
from typing import Any, NoReturn

from latchstore.contract.arguments import describe
from latchstore.contract.errors import StoreFormatError
from latchstore.contract.storable import (
    DAMAGE,
    DEPTH,
    READERS,
    UnstorableError,
    checked,
    distinct,
    parts_of,
    set_of,
    too_deep,
)
from latchstore.contract.values import ATOMIC_TYPES, Entry, NestedEntry, is_immutable

#: The most brackets that the text has for each level of nesting.
_BRACKETS = 3

#: Two surrogates that JSON would join to one character.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BETWEEN_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


# -- writing ------------------------------------------------------------------------------------------


def encode_metadata(key: str, entry: Entry) -> str:
    """Return the metadata of an entry as text.

    Raises
    ------
    TypeError
        If a value has a type that cannot be stored; names key, item and the types that can be.
    ValueError
        If a value is nested too deeply, or is an int with too many digits for ``str``; names key and item.
    """
    if not entry:
        return "{}"  # hot path: most entries have no metadata
    members: list[str] = []
    for name, value in entry.items():
        writer = _SINGLE.get(type(value))
        try:
            text = writer(value) if writer is not None else _text(value, DEPTH)
        except UnstorableError as error:
            raise error.of_item(key, name) from None
        except ValueError as error:
            raise ValueError(f"key {key!r}: the metadata item {name!r} cannot be stored: {error}") from error
        members.append(f"{quoted(name)}: {text}")
    text = ", ".join(members)
    if (text.startswith('"$dict"') and len(entry) == 1) or ("\\ud" in text and any(map(_PAIR.search, entry))):
        return _pairs(entry, DEPTH)
    return f"{{{text}}}"


def encode_plain(entries: Sequence[Entry]) -> list[str] | None:
    """Return what `encode_metadata` returns for each entry; None if one of them needs a closer look.

    Every loop is in C: a thread that computes does not take the interpreter between the entries.
    """
    if not any(entries):
        return ["{}"] * len(entries)
    if not _PLAIN.issuperset(map(type, chain.from_iterable(map(Entry.values, entries)))):
        return None
    try:
        text = "".join(_encode(entries, 0))
    except ValueError:
        return None  # nan, inf, or an int with too many digits
    parts = text[2:-2].split("}, {")
    # A string may have the separator as well. Where one of the others is, there may have to be a tag.
    if len(parts) != len(entries) or '"$dict"' in text or "\\ud" in text:
        return None
    return list(map("{%s}".__mod__, parts))


def check_metadata(key: str, entry: Entry) -> None:
    """Raise the errors that `encode_metadata` would raise."""
    for value in entry.values():
        kind = type(value)
        # hot path: most values are of types whose values can all be stored.
        if kind not in _ALWAYS and (kind is not int or value.bit_length() > _BITS):
            encode_metadata(key, entry)
            return


#: Types whose values JSON keeps as they are, nearly all of them.
_PLAIN = frozenset({str, int, float, bool, type(None)})

# hot path: what `JSONEncoder.encode` makes for each object.
_encode: Callable[[Any, int], Iterable[str]] = c_make_encoder(
    None, None, quoted, None, ": ", ", ", False, False, False
)

#: Types of which every value can be stored, and the bits of an int that ``str`` always accepts.
_ALWAYS = frozenset({str, bytes, float, bool, type(None)})
_BITS = 1_000


def _string(value: str) -> str:
    text = quoted(value)
    if "\\ud" in text and _PAIR.search(value):
        return _tag("str", _list(map(quoted, _BETWEEN_PAIR.split(value))))
    return text


def _real(value: float) -> str:
    return float.__repr__(value) if math.isfinite(value) else _tag("float", f'"{value!r}"')


#: Writers of values that contain no others, by exact type.
_SINGLE: dict[type, Callable[[Any], str]] = {
    str: _string,
    int: int.__repr__,
    float: _real,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
    bytes: lambda value: _tag("bytes", f'"{binascii.b2a_base64(value, newline=False).decode()}"'),
}


def _text(value: Any, depth: int) -> str:
    """Return a value as text."""
    kind = type(value)
    writer = _SINGLE.get(kind)
    if writer is not None:
        return writer(value)
    nested = _NESTED.get(kind)
    if nested is None:
        name, parts = parts_of(value)
        return _tag(name, _text(parts, DEPTH))
    if not depth:
        raise too_deep()
    return nested(value, depth - 1)


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
    """Return the items of a set in an order that depends on the items only."""
    return _list(sorted([_text(value, depth) for value in values]))


#: Writers of values that contain others, by exact type; the integer is the nesting that is still allowed.
_NESTED: dict[type, Callable[[Any, int], str]] = {
    list: _items,
    dict: _dict,
    tuple: lambda value, depth: _tag("tuple", _items(value, depth)),
    set: lambda value, depth: _tag("set", _in_order(value, depth)),
    frozenset: lambda value, depth: _tag("frozenset", _in_order(value, depth)),
}


# -- reading ------------------------------------------------------------------------------------------


def decode_metadata(text: object, key: str = "", *, tags: bool = True) -> Entry:
    """Return an entry, without data and times, that has the metadata in `text`.

    Parameters
    ----------
    text : str
    key : str
        The key of the entry, for errors.
    tags : bool
        Whether tags are decoded. The first file format has none: there every object is a dict.

    Raises
    ------
    StoreFormatError
        If `encode_metadata` cannot have written `text`, apart from spaces and the order of members.
    """
    if text == "{}":
        return Entry()  # hot path: most entries have no metadata
    plain = True
    try:
        if type(text) is not str:
            raise TypeError(f"it is {describe(text)}, not text")
        items = _parsed(text)
        if tags and len(items) == 1 and "$dict" in items:
            items, plain = _tagged(items, DEPTH + 1), False
            if not all(type(name) is str for name in items):
                raise TypeError("a name is not a string")
        elif not _EXACT.issuperset(map(type, items.values())):
            plain = False
            _decode_values(items, tags)
    except RecursionError:
        if str(text).count("[") + str(text).count("{") <= _BRACKETS * DEPTH:
            raise  # the caller's stack was deep already
        raise StoreFormatError(f"the metadata of key {key!r} is damaged: it is nested too deeply") from None
    except DAMAGE as error:
        raise StoreFormatError(f"the metadata of key {key!r} is damaged: {error}") from error
    return Entry(items) if plain or all(map(is_immutable, items.values())) else NestedEntry(items)


def decode_plain(texts: Sequence[str]) -> list[Entry] | None:
    """Return what `decode_metadata` returns for each of some texts; None if one needs a closer look.

    Every loop is in C: a thread that computes does not take the interpreter between the texts.
    """
    try:
        items, ends = zip(*map(_scan_plain, texts, repeat(0)), strict=True)
    except (*DAMAGE, RecursionError):
        return None
    # There are fewer of them than texts if there was no value in one.
    if ends != tuple(map(len, texts)) or not _ONLY_DICT.issuperset(map(type, items)):
        return None
    values = list(chain.from_iterable(map(dict.values, items)))
    types = list(map(type, values))
    if (
        not ATOMIC_TYPES.issuperset(types)
        or not all(map(math.isfinite, compress(values, map(is_, types, repeat(float)))))
        or any(map(contains, items, repeat("$dict")))
    ):
        return None
    # A name that is duplicated has two more quotes than there are names and strings.
    text = "".join(texts)
    quotes = text.count('"') - text.count('\\"')
    if "\\\\" in text or quotes != 2 * (sum(map(len, items)) + types.count(str)):
        return None
    return list(map(Entry, items))


def _decode_values(items: dict[str, Any], tags: bool) -> None:
    for name, value in items.items():
        if type(value) not in _EXACT:
            items[name] = _value(value, tags, DEPTH)


#: The types that JSON decodes exactly.
_EXACT = ATOMIC_TYPES - {float}


def _refuse_constant(name: str) -> NoReturn:
    """Raise for nan and inf, which are not JSON."""
    raise ValueError(f"it contains {name}")


_decoder = json.JSONDecoder(object_pairs_hook=distinct, parse_constant=_refuse_constant)
# hot path: the scanner is faster than `decode`.
_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_decoder)  # type: ignore[arg-type]


_scan_plain: Callable[[str, int], tuple[Any, int]] = make_scanner(
    json.JSONDecoder(parse_constant=_refuse_constant)  # type: ignore[arg-type]
)
_ONLY_DICT = frozenset({dict})


def _parsed(text: str) -> dict[str, Any]:
    try:
        items, end = _scan(text, 0)
    except StopIteration:
        end = -1
    if end != len(text):
        items = _decoder.decode(text)  # other programs may have written spaces around it
    if type(items) is not dict:
        raise TypeError(f"it is {describe(items)}, not an object")
    return items


def _value(value: Any, tags: bool, depth: int) -> Any:
    """Return the value that a JSON value stands for."""
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif kind is list or kind is dict:
        if not depth:
            raise too_deep()
        if kind is list:
            return [_value(each, tags, depth - 1) for each in value]
        if tags and any(name.startswith("$") for name in value):
            return _tagged(value, depth)
        return {name: _value(each, tags, depth - 1) for name, each in value.items()}
    return value


def _tagged(value: dict[str, Any], depth: int) -> Any:
    """Return the value that an object with a tag stands for."""
    if len(value) != 1:
        raise ValueError(f"an object with a tag has {len(value)} members, not one")
    ((tag, body),) = value.items()
    nested = _READ_NESTED.get(tag)
    if nested is not None:
        return nested([_value(each, True, depth - 1) for each in checked(list, body)])
    if tag == "$dict":
        return distinct([_pair(each, depth - 1) for each in checked(list, body)])
    reader = _READ.get(tag)
    if reader is None:
        raise ValueError(f"the tag {describe(tag)} is unknown")
    found = reader(_value(body, True, DEPTH))
    if _text(found, DEPTH) != f'{{"{tag}": {json.dumps(body)}}}':
        raise ValueError(f"{describe(body)} is not in the form that {tag} is written in")
    return found


def _pair(each: Any, depth: int) -> tuple[Any, Any]:
    name, value = checked(list, each)
    return _value(name, True, depth), _value(value, True, depth)


_READ_NESTED: dict[str, Callable[[list[Any]], Any]] = {
    "$tuple": tuple,
    "$set": set_of(set),
    "$frozenset": set_of(frozenset),
}

_READ: dict[str, Callable[[Any], Any]] = {
    "$str": lambda body: "".join([checked(str, part) for part in checked(list, body)]),
    "$float": lambda body: float(checked(str, body)),
    "$bytes": lambda body: binascii.a2b_base64(checked(str, body), strict_mode=True),
    **{f"${name}": reader for name, reader in READERS.items()},
}
