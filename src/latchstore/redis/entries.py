"""Entries as the server keeps them, and keys.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from latchstore.contract.values import ATOMIC_TYPES, Entry, NestedEntry, is_immutable
from latchstore.redis.encoding import decode_item

#: What the field of a metadata item begins with; that of its position in an index begins with a p.
_ITEM = b"m"


def stored_key(key: str) -> bytes:
    """Return what stands for a key, or for the name of an item: UTF-8, with lone surrogates."""
    return key.encode("utf-8", "surrogatepass")


def name_of(stored: bytes) -> str:
    """Return the key that something stands for."""
    return stored.decode("utf-8", "surrogatepass")


def entry_of(key: str, flat: Sequence[bytes]) -> Entry:
    """Return the entry of a hash, as HGETALL gives it and the log has it."""
    entry = Entry()
    fields = iter(flat)
    nested = False
    for field in fields:
        value = next(fields)
        if field == b"d":
            entry.content = value
        elif field == b"t":
            created, modified, revision = value.split()
            entry.created = float(created)
            entry.modified = float(modified)
            entry.revision = int(revision)
        elif field[:1] == _ITEM:
            name = name_of(field[1:])
            item = entry[name] = decode_item(value, key, name)
            if type(item) not in ATOMIC_TYPES and not is_immutable(item):
                nested = True
    return _nested(entry) if nested else entry


def _nested(entry: Entry) -> Entry:
    nested = NestedEntry(entry)
    nested.content = entry.content
    nested.created, nested.modified, nested.revision = entry.created, entry.modified, entry.revision
    return nested
