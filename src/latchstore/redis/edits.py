"""Edits as arguments of the commit script.

Thread safety: functions of their arguments. No code of users runs, except as in ``encoding.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from latchstore.contract.values import Entry
from latchstore.engine.edits import (
    Combined,
    Delete,
    Edit,
    IfItems,
    IfRevision,
    MergeMetadata,
    Resolved,
    SetData,
    SetMetadata,
)
from latchstore.engine.first_entry import FirstEntry
from latchstore.redis.encoding import encode_item
from latchstore.redis.entries import stored_key
from latchstore.redis.first_values import span_of_prefix
from latchstore.redis.positions import stored_position

#: The names of indexed items.
Names = Collection[str]


def arguments_of(edits: Collection[tuple[str, Edit]], names: Names) -> list[Any]:
    """Return the script's arguments for edits: their number, and the arguments of each.

    Raises
    ------
    TypeError, ValueError
        If a metadata item cannot be stored; the error names key and item.
    """
    if isinstance(edits, FirstEntry):
        return first_entry_arguments(edits)
    arguments: list[Any] = [0]
    count = 0
    for key, edit in edits:
        if type(edit) is Entry and not names:  # hot path: what most commits have
            arguments += (b"E", key.encode("utf-8", "surrogatepass"), edit.content, len(edit))
            for name, value in edit.items():
                arguments += (_item_field(name), encode_item(key, name, value))
            count += 1
        else:
            count += _add(arguments, key, stored_key(key), edit, names)
    arguments[0] = count
    return arguments


def deletes_only(edits: Collection[tuple[str, Edit]]) -> bool:
    """Return whether edits only delete, so that they are allowed even if the server has no memory left."""
    if isinstance(edits, FirstEntry):
        return False
    for _, edit in edits:  # noqa: SIM110 (hot path: usually the first one decides; `all` needs a generator)
        if not _deletes(edit):
            return False
    return True


def _deletes(edit: Edit) -> bool:
    while isinstance(edit, (IfRevision, IfItems)):
        edit = edit.edit
    if type(edit) is Combined:
        return all(map(_deletes, edit.edits))
    return type(edit) is Delete or (type(edit) is Resolved and edit.entry is None)


def _add(arguments: list[Any], key: str, stored: bytes, edit: Edit, names: Names) -> int:
    """Add an edit; return the number of edits of the script."""
    if isinstance(edit, Entry):
        fields = _item_fields(key, edit, names) if edit else ()
        arguments += (b"E", stored, edit.data, len(fields) // 2, *fields)
        return 1
    added = _ADDED.get(type(edit))
    if added is not None:
        arguments += added(key, stored, edit, names)
        return 1
    if type(edit) is Combined:
        return sum([_add(arguments, key, stored, each, names) for each in edit.edits])
    if isinstance(edit, IfRevision):
        arguments += (b"R", stored, edit.expected)
    elif not isinstance(edit, IfItems):
        # An edit of another package, which converts itself to one of these.
        return _add(arguments, key, stored, edit.plain(), names)  # type: ignore[attr-defined]
    else:
        fields = _item_fields(key, dict(edit.items), ())
        arguments += (b"I", stored, len(fields) // 2, *fields)
    return 1 + _add(arguments, key, stored, edit.edit, names)


def _item_fields(key: str, metadata: Mapping[str, Any], names: Names) -> list[bytes]:
    """Return the fields of the metadata, and of its positions in indexes."""
    fields: list[bytes] = []
    for name, value in metadata.items():
        fields += (_item_field(name), encode_item(key, name, value))
        if name in names:
            fields += (b"p" + stored_key(name), stored_position(value))
    return fields


@lru_cache(1_000)
def _item_field(name: str) -> bytes:
    """Return the field of a metadata item."""
    return b"m" + stored_key(name)


def _set_data(key: str, stored: bytes, edit: SetData, names: Names) -> tuple[Any, ...]:
    return b"D", stored, edit.data


def _set_metadata(key: str, stored: bytes, edit: SetMetadata, names: Names) -> tuple[Any, ...]:
    fields = _item_fields(key, edit.metadata, names)
    return b"M", stored, len(fields) // 2, *fields


def _merge(key: str, stored: bytes, edit: MergeMetadata, names: Names) -> tuple[Any, ...]:
    fields = _item_fields(key, edit.metadata, names)
    return b"U", stored, len(fields) // 2, *fields


def _delete(key: str, stored: bytes, edit: Delete, names: Names) -> tuple[Any, ...]:
    return b"X", stored, edit.cause or b""


def _resolved(key: str, stored: bytes, edit: Resolved, names: Names) -> tuple[Any, ...]:
    entry = edit.entry
    if entry is None:
        return b"V", stored, edit.cause or b""
    fields = _item_fields(key, entry, names)
    return b"F", stored, entry.data, repr(entry.created), repr(entry.modified), len(fields) // 2, *fields


def first_entry_arguments(edit: FirstEntry) -> list[Any]:
    """Return the script's arguments for an edit that finds its entry itself."""
    item, counter, ready, due, seconds, now = edit.leasing
    return [
        1, b"C", b"", stored_key(item), stored_key(counter), stored_key(due), *span_of_prefix(due),
        *span_of_prefix(ready), int(seconds * 1_000_000), b"" if now is None else int(now * 1_000_000),
    ]  # fmt: skip


_ADDED: dict[type, Any] = {
    SetData: _set_data,
    SetMetadata: _set_metadata,
    MergeMetadata: _merge,
    Delete: _delete,
    Resolved: _resolved,
}
