"""Metadata items as MessagePack, strictly: values keep their types, and nothing else is accepted.

Types of MessagePack itself are stored as they are: None, bool, int of 64 bits, float, str, bytes, lists, and
dicts with keys of any type. Other types are extension types: tuples, sets and frozensets with the array of
their items, longer ints with their bytes, and the other types of ``contract/storable.py`` with their parts. A
str is UTF-8 with surrogates.

The types are those of files (``contract/encoding.py``), and so are the errors.

Thread safety: functions of their arguments. The only code of values that runs is the hash and ``==`` of items
of sets and dicts, which are of the types above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgpack

from latchstore.contract.arguments import describe
from latchstore.contract.errors import StoreFormatError
from latchstore.contract.storable import (
    DAMAGE,
    DEPTH,
    READERS,
    UnstorableError,
    distinct,
    parts_of,
    set_of,
    too_deep,
)

#: The codes of extension types are part of the format: they must not change.
_TUPLE, _SET, _FROZENSET, _INT = 1, 2, 3, 4
_CODES = {"complex": 5, "date": 6, "datetime": 7, "time": 8, "timedelta": 9, "decimal": 10, "uuid": 11}

#: Ints from the first to below the second need no extension type.
_LOW, _HIGH = -(2**63), 2**64

#: Types of MessagePack itself that contain no other values. Exact types.
_SINGLE = frozenset({str, float, bool, bytes, type(None)})

# A new packer for each value: finalizers and signal handlers may pack in the middle of a call.
_pack: Callable[[Any], bytes] = partial(msgpack.packb, unicode_errors="surrogatepass")

#: The encoding of ints below 128, and the prefix of texts of less than 32 bytes.
_SMALL: list[bytes] = [bytes((number,)) for number in range(128)]
_SHORT: list[bytes] = [bytes((0xA0 | length,)) for length in range(32)]

#: Arrays are read as lists, and maps as tuples of pairs.
_unpack: Callable[[bytes], Any] = partial(
    msgpack.unpackb, unicode_errors="surrogatepass", strict_map_key=False, object_pairs_hook=tuple
)


# -- writing ------------------------------------------------------------------------------------------


def encode_item(key: str, name: str, value: Any) -> bytes:
    """Return the value of a metadata item as bytes.

    Raises
    ------
    TypeError
        If its type cannot be stored; the error names key, item and the supported types.
    ValueError
        If it is nested too deeply, or is an int too long for ``str``; the error names key and item.
    """
    # hot path: most values have these types, and most numbers and texts are short.
    if type(value) is str and len(value) < 32 and value.isascii():
        return _SHORT[len(value)] + value.encode()
    if type(value) is int and 0 <= value < 128:
        return _SMALL[value]
    if type(value) in _SINGLE:
        return _pack(value)
    try:
        return _packed(value, DEPTH)
    except UnstorableError as error:
        raise error.of_item(key, name) from None
    except ValueError as error:
        raise ValueError(f"key {key!r}: the metadata item {name!r} cannot be stored: {error}") from error


def _packed(value: Any, depth: int) -> bytes:
    kind = type(value)
    if kind in _SINGLE:
        return _pack(value)
    if kind is int:
        return _pack(value) if _LOW <= value < _HIGH else _extension(_INT, _long(value))
    nested = _NESTED.get(kind)
    if nested is not None:
        if not depth:
            raise too_deep()
        return nested(value, depth - 1)
    name, parts = parts_of(value)
    return _extension(_CODES[name], _pack(parts))


def _extension(code: int, body: bytes) -> bytes:
    return _pack(msgpack.ExtType(code, body))


def _long(value: int) -> bytes:
    int.__repr__(value)  # raises for an int that neither a file nor an error message can contain
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _array(items: list[bytes]) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(len(items))
    return header + b"".join(items)


def _list(values: Iterable[Any], depth: int) -> bytes:
    return _array([_packed(value, depth) for value in values])


def _in_order(values: Iterable[Any], depth: int) -> bytes:
    """Return the items of a set in an order that depends only on them."""
    return _array(sorted([_packed(value, depth) for value in values]))


def _dict(items: dict[Any, Any], depth: int) -> bytes:
    header: bytes = msgpack.Packer().pack_map_header(len(items))
    return header + b"".join(
        [_packed(part, depth) for pair in items.items() for part in pair]  # each name before its value
    )


#: Encoders of values that contain others; called with the allowed depth of nesting.
_NESTED: dict[type, Callable[[Any, int], bytes]] = {
    list: _list,
    dict: _dict,
    tuple: lambda value, depth: _extension(_TUPLE, _list(value, depth)),
    set: lambda value, depth: _extension(_SET, _in_order(value, depth)),
    frozenset: lambda value, depth: _extension(_FROZENSET, _in_order(value, depth)),
}


# -- reading ------------------------------------------------------------------------------------------


def decode_item(data: bytes, key: str = "", name: str = "") -> Any:
    """Return the value of encoded bytes.

    Parameters
    ----------
    data : bytes
    key, name : str
        The key and the metadata item of the value, for the error.

    Raises
    ------
    StoreFormatError
        If it is not an encoding by `encode_item`, except for the length of numbers and the order of sets.
    """
    try:
        value = _unpack(data)
        if type(value) in _EXACT:
            return value  # hot path: most values have such a type
        return _value(value, DEPTH)
    except DAMAGE as error:
        raise StoreFormatError(f"the metadata item {name!r} of key {key!r} is damaged: {error}") from error


#: Types that need no further check after reading.
_EXACT = _SINGLE | {int}


def _value(value: Any, depth: int) -> Any:
    """Return the value for a value of MessagePack."""
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is list:
        return _values(value, depth)
    if kind is tuple:
        within = _within(depth)
        return distinct([(_value(name, within), _value(each, within)) for name, each in value])
    if kind is not msgpack.ExtType:
        raise TypeError(f"it has {describe(value)}")  # a timestamp of MessagePack
    return _extended(value.code, value.data, depth)


def _within(depth: int) -> int:
    if not depth:
        raise too_deep()
    return depth - 1


def _values(values: Any, depth: int) -> list[Any]:
    if type(values) is not list:
        raise TypeError(f"{describe(values)} is not an array")
    within = _within(depth)
    return [_value(value, within) for value in values]


def _extended(code: int, body: bytes, depth: int) -> Any:
    """Return the value of an extension type."""
    made = _MADE_OF.get(code)
    if made is not None:
        return made(_values(_unpack(body), depth))
    if code == _INT:
        number = int.from_bytes(body, "big", signed=True)
        if _LOW <= number < _HIGH or len(body) != number.bit_length() // 8 + 1:
            raise ValueError(f"{describe(number)} is not in canonical form")
        return number
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"the extension type {code} is unknown")
    found = read(_unpack(body))
    name, parts = parts_of(found)
    if _CODES[name] != code or _pack(parts) != body:
        raise ValueError(f"{describe(found)} is not in canonical form")
    return found


_MADE_OF: dict[int, Callable[[list[Any]], Any]] = {
    _TUPLE: tuple,
    _SET: set_of(set),
    _FROZENSET: set_of(frozenset),
}
_READERS = {code: READERS[name] for name, code in _CODES.items()}
