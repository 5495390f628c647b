"""Metadata items as MessagePack, strictly: what is written comes back with its types, and nothing else is.

What MessagePack has by itself stands as it is: None, bool, int of 64 bits, float, str, bytes, lists, and
dicts with keys of any kind. All else is an extension type: tuples, sets and frozensets with the array of
their items in it, longer ints with their bytes, and the other types of ``contract/storable.py`` with their
parts. A str is UTF-8 with surrogates.

The types are those that a file may have (``contract/encoding.py``), and so are the errors.

Thread safety: functions of their arguments. No code of the user's own runs but the hash and ``==`` of what is
in sets and dicts, which is of the types above.
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

#: The codes of extension types are a part of the format: none may change.
_TUPLE, _SET, _FROZENSET, _INT = 1, 2, 3, 4
_CODES = {"complex": 5, "date": 6, "datetime": 7, "time": 8, "timedelta": 9, "decimal": 10, "uuid": 11}

#: Ints from the one to below the other need no extension type.
_LOW, _HIGH = -(2**63), 2**64

#: What MessagePack has by itself, of values without others in them. Exact types.
_SINGLE = frozenset({str, float, bool, bytes, type(None)})

# A packer of its own for each value: finalizers and signal handlers may write in the middle of one.
_pack: Callable[[Any], bytes] = partial(msgpack.packb, unicode_errors="surrogatepass")

#: What MessagePack writes of ints below 128, and before texts of less than 32 bytes.
_SMALL: list[bytes] = [bytes((number,)) for number in range(128)]
_SHORT: list[bytes] = [bytes((0xA0 | length,)) for length in range(32)]

#: Arrays come as lists, and maps as tuples of pairs.
_unpack: Callable[[bytes], Any] = partial(
    msgpack.unpackb, unicode_errors="surrogatepass", strict_map_key=False, object_pairs_hook=tuple
)


# -- writing ------------------------------------------------------------------------------------------


def encode_item(key: str, name: str, value: Any) -> bytes:
    """Return the value of a metadata item as bytes.

    Raises
    ------
    TypeError
        If it is of a type that cannot be stored; names key, item and the types that can be.
    ValueError
        If it is nested too deeply, or is an int with too many digits for ``str``; names key and item.
    """
    # hot path: most values are of these types, and most numbers and texts are short.
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
    int.__repr__(value)  # raises for what no file can have, nor an error message
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _array(items: list[bytes]) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(len(items))
    return header + b"".join(items)


def _list(values: Iterable[Any], depth: int) -> bytes:
    return _array([_packed(value, depth) for value in values])


def _in_order(values: Iterable[Any], depth: int) -> bytes:
    """Return the items of a set in an order that depends on nothing but them."""
    return _array(sorted([_packed(value, depth) for value in values]))


def _dict(items: dict[Any, Any], depth: int) -> bytes:
    header: bytes = msgpack.Packer().pack_map_header(len(items))
    return header + b"".join(
        [_packed(part, depth) for pair in items.items() for part in pair]  # names, each before its value
    )


#: How a value with others in it is written, and how deep these may be nested yet.
_NESTED: dict[type, Callable[[Any, int], bytes]] = {
    list: _list,
    dict: _dict,
    tuple: lambda value, depth: _extension(_TUPLE, _list(value, depth)),
    set: lambda value, depth: _extension(_SET, _in_order(value, depth)),
    frozenset: lambda value, depth: _extension(_FROZENSET, _in_order(value, depth)),
}


# -- reading ------------------------------------------------------------------------------------------


def decode_item(data: bytes, key: str = "", name: str = "") -> Any:
    """Return the value that bytes stand for.

    Parameters
    ----------
    data : bytes
    key, name : str
        The key and the metadata item that it is of, for the error.

    Raises
    ------
    StoreFormatError
        If it is not what `encode_item` could have written, up to how long a number is and the order of a set.
    """
    try:
        value = _unpack(data)
        if type(value) in _EXACT:
            return value  # hot path: most values are of such a type
        return _value(value, DEPTH)
    except DAMAGE as error:
        raise StoreFormatError(f"the metadata item {name!r} of key {key!r} is damaged: {error}") from error


#: What is read and needs no second look.
_EXACT = _SINGLE | {int}


def _value(value: Any, depth: int) -> Any:
    """Return what a value of MessagePack's stands for."""
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is list:
        return _values(value, depth)
    if kind is tuple:
        within = _within(depth)
        return distinct([(_value(name, within), _value(each, within)) for name, each in value])
    if kind is not msgpack.ExtType:
        raise TypeError(f"it has {describe(value)}")  # a timestamp of MessagePack's
    return _extended(value.code, value.data, depth)


def _within(depth: int) -> int:
    if not depth:
        raise too_deep()
    return depth - 1


def _values(values: Any, depth: int) -> list[Any]:
    if type(values) is not list:
        raise TypeError(f"{describe(values)} is no array")
    within = _within(depth)
    return [_value(value, within) for value in values]


def _extended(code: int, body: bytes, depth: int) -> Any:
    """Return what an extension type stands for."""
    made = _MADE_OF.get(code)
    if made is not None:
        return made(_values(_unpack(body), depth))
    if code == _INT:
        number = int.from_bytes(body, "big", signed=True)
        if _LOW <= number < _HIGH or len(body) != number.bit_length() // 8 + 1:
            raise ValueError(f"{describe(number)} is written in another way")
        return number
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"the extension type {code} is unknown")
    found = read(_unpack(body))
    name, parts = parts_of(found)
    if _CODES[name] != code or _pack(parts) != body:
        raise ValueError(f"{describe(found)} is written in another way")
    return found


_MADE_OF: dict[int, Callable[[list[Any]], Any]] = {
    _TUPLE: tuple,
    _SET: set_of(set),
    _FROZENSET: set_of(frozenset),
}
_READERS = {code: READERS[name] for name, code in _CODES.items()}
