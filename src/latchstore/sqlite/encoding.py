"""Metadata as text in a file."""

from __future__ import annotations

import json

from latchstore.contract.values import Entry, entry_from_metadata


def encode_metadata(key: str, entry: Entry) -> str:
    """Return the metadata of an entry as JSON.

    Raises
    ------
    TypeError
        If an item cannot be stored; names the key and the item.
    """
    return json.dumps(entry) if entry else "{}"


def decode_metadata(text: str) -> Entry:
    """Return an entry with the metadata that was encoded, without data and times."""
    return entry_from_metadata(json.loads(text))
