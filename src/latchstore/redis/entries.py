"""Entries and keys as they are stored on the server.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from latchstore.contract.values import ATOMIC_TYPES, Entry, NestedEntry, is_immutable
from latchstore.redis.encoding import decode_item

#: The fields of an entry's hash for its data, and for its times and revision.
DATA, TIMES = b"d", b"t"
#: Prefix of the fields of metadata items; fields of positions in indexes begin with p.
_ITEM = b"m"

#: Numbers in scripts are floats, which represent revisions up to 2 ** 53 exactly.
_unpack_times = struct.Struct(">ddd").unpack


def stored_key(key: str) -> bytes:
    """Return the stored form of a key or an item's name: UTF-8, with lone surrogates."""
    return key.encode("utf-8", "surrogatepass")


def name_of(stored: bytes) -> str:
    """Return the key of a stored form."""
    return stored.decode("utf-8", "surrogatepass")


def entry_of(key: str, flat: Sequence[bytes]) -> Entry:
    """Return the entry of a hash as HGETALL returns it and the log has it; empty data if it was omitted."""
    items: dict[str, Any] = {}
    data = times = b""
    is_nested = False
    fields = iter(flat)
    for field in fields:
        value = next(fields)
        if field == DATA:
            data = value
        elif field == TIMES:
            times = value
        elif field[:1] == _ITEM:
            name = field[1:].decode("utf-8", "surrogatepass")
            item = items[name] = decode_item(value, key, name)
            if type(item) not in ATOMIC_TYPES and not is_immutable(item):
                is_nested = True
    entry = NestedEntry(items) if is_nested else Entry(items)
    entry.content = data
    entry.created, entry.modified, revision = _unpack_times(times)
    entry.revision = int(revision)
    return entry
