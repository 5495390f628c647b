"""Entries as the server keeps them, and keys.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from latchstore.contract.values import ATOMIC_TYPES, Entry, NestedEntry, is_immutable
from latchstore.redis.encoding import decode_item

#: What an item of metadata and a position in an index are called in an entry's hash.
_ITEM, _POSITION = b"m", b"p"


def stored_key(key: str) -> bytes:
    """Return what stands for a key, or for the name of an item: UTF-8, with lone surrogates."""
    return key.encode("utf-8", "surrogatepass")


def name_of(stored: bytes) -> str:
    """Return the key that something stands for."""
    return stored.decode("utf-8", "surrogatepass")


def entry_of(key: str, flat: Sequence[bytes]) -> Entry:
    """Return the entry of a hash, as HGETALL gives it."""
    entry = Entry()
    fields = iter(flat)
    nested = False
    for field in fields:
        value = next(fields)
        if field == b"d":
            entry.content = value
        elif field == b"c":
            entry.created = float(value)
        elif field == b"u":
            entry.modified = float(value)
        elif field == b"r":
            entry.revision = int(value)
        elif field[:1] == _ITEM:
            name = name_of(field[1:])
            item = entry[name] = decode_item(value, key, name)
            if type(item) not in ATOMIC_TYPES and not is_immutable(item):
                nested = True
    return _nested(entry) if nested else entry


def logged_entry(key: str, logged: Sequence[Any]) -> Entry:
    """Return an entry of the log."""
    created, modified, revision, data, *fields = logged
    entry = Entry()
    for field, value in _pairs(fields):
        if field[:1] == _ITEM:
            name = name_of(field[1:])
            entry[name] = decode_item(value, key, name)
    if not all(map(is_immutable, entry.values())):
        entry = NestedEntry(entry)
    entry.content = data
    entry.created = float(created)
    entry.modified = float(modified)
    entry.revision = int(revision)
    return entry


def _pairs(fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(fields[::2], fields[1::2], strict=True)


def _nested(entry: Entry) -> Entry:
    nested = NestedEntry(entry)
    nested.content = entry.content
    nested.created, nested.modified, nested.revision = entry.created, entry.modified, entry.revision
    return nested
