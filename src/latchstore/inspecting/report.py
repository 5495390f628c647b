"""The data for ``inspect``, as plain values that are valid JSON.

No data of a store is unpickled, imported or run.

Thread safety: one thread uses a source and these functions.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from latchstore.contract.encoding import encode_metadata
from latchstore.contract.glob_pattern import matcher
from latchstore.contract.ordering import Ordered
from latchstore.contract.ranges import Prefix
from latchstore.contract.store import AbstractReadOnlyStore
from latchstore.contract.values import Value, entry_from_metadata
from latchstore.inspecting.sources import Source
from latchstore.queue import places

#: Number of keys in an overview.
_LARGEST = 10


def overview(source: Source) -> dict[str, Any]:
    """Return the kind of a store, and the amount of its data."""
    store = source.store
    info, facts = store.info(), source.facts()
    total, largest = source.sizes(_LARGEST)
    keys = info["keys"] if "keys" in info else len(store)
    return {
        "engine": source.kind,
        "place": source.place,
        "file_bytes": os.stat(source.place).st_size if os.path.isfile(source.place) else None,
        "keys": keys,
        "data_bytes": total,
        "revision": info.get("revision"),
        "history_from": facts["oldest"],
        "indexes": [index_name(index) for index in facts["indexes"]],
        "caches": facts["caches"],
        "queues": queues(store, time.time()),
        "largest": [{"key": key, "bytes": size} for key, size in largest],
    }


def index_name(index: str | Ordered) -> str:
    """Return the displayed name of an index."""
    return index if isinstance(index, str) else f"{index.order.name} (ordered)"


def queues(store: AbstractReadOnlyStore, now: float) -> list[dict[str, Any]]:
    """Return the work queues that have jobs in a store, with the number of jobs in each state."""
    found: dict[str, dict[str, Any]] = {}
    oldest: dict[str, int] = {}
    for _, items in store.query((places.PLACE,), where={places.PLACE: Prefix("")}):
        try:
            place = places.parsed(items[places.PLACE])
            state, number = places.COUNTED[place.state], place.number
        except (ValueError, IndexError, KeyError):
            continue  # a user's own item of this name
        zeros = dict.fromkeys(places.COUNTED.values(), 0)
        counts = found.setdefault(place.queue, {"name": place.queue, **zeros})
        counts[state] += 1
        if state == "waiting":
            oldest[place.queue] = min(number, oldest.get(place.queue, number))
    for name, counts in found.items():
        counts["oldest_waiting"] = max(0.0, now - oldest[name] / 1e9) if name in oldest else None
    return [found[name] for name in sorted(found)]


def listing(
    source: Source,
    pattern: str | None,
    terms: Mapping[str, Any],
    order_by: str | None,
    descending: bool,
    limit: int | None,
) -> dict[str, Any]:
    """Return the entries that match a pattern and terms.

    Returns
    -------
    listing : dict
        ``entries``, each with ``key``, ``bytes``, ``modified``, ``revision`` and ``metadata``; ``more``,
        whether the limit has omitted any.
    """
    store = source.store
    most = None if limit is None else limit + 1
    keys: Iterable[str]
    if pattern is not None and not terms:
        keys = store.glob(pattern, order_by=order_by or "key", descending=descending, limit=most)
    else:
        # With a pattern as well, the limit applies to entries that match both.
        asked = most if pattern is None else None
        keys = store.query_keys(where=terms, order_by=order_by or "key", descending=descending, limit=asked)
        if pattern is not None:
            keys = filter(matcher(pattern), keys)
    entries = []
    for key in islice(keys, most):
        with suppress(KeyError):  # deleted meanwhile, in a store without snapshots
            value = store.get(key)
            entries.append(
                {
                    "key": key,
                    "bytes": value.size,
                    "modified": value.modified,
                    "revision": value.revision,
                    "metadata": jsonable(key, value.metadata),
                }
            )
    more = limit is not None and len(entries) > limit
    return {"entries": entries[:limit], "more": more}


def entry(source: Source, key: str, most: int) -> dict[str, Any]:
    """Return one entry, with the first `most` bytes of its data.

    Raises
    ------
    KeyError
        If the key is missing.
    """
    value = source.store.get(key)
    return {
        "key": key,
        "bytes": value.size,
        "created": value.created,
        "modified": value.modified,
        "revision": value.revision,
        "metadata": jsonable(key, value.metadata),
        **_content(value, most),
    }


def _content(value: Value, most: int) -> dict[str, Any]:
    """Return ``kind``, and the content in its form: ``value`` for JSON and objects, ``text``, ``base64``."""
    content = value.content
    if not isinstance(content, bytes):
        kept = content if isinstance(content, (str, int, float)) else repr(content)
        return {"kind": f"{type(content).__qualname__}, kept by reference", "value": kept}
    with suppress(ValueError, RecursionError):
        return {"kind": "JSON", "value": json.loads(content)}
    shown = content[:most]
    cut = {"left_out": len(content) - len(shown)}
    try:
        text = shown.decode()
    except UnicodeDecodeError as error:
        text = shown[: error.start].decode()
        if not cut["left_out"] or error.reason != "unexpected end of data":
            kind = "pickle, not decoded" if _is_pickle(content) else "bytes"
            return {"kind": kind, "base64": base64.b64encode(shown).decode(), **cut}
        cut["left_out"] = len(content) - error.start
    if any(not (each.isprintable() or each in "\n\r\t") for each in text):
        return {"kind": "bytes", "base64": base64.b64encode(shown).decode(), **cut}
    return {"kind": "text", "text": text, **cut}


def _is_pickle(content: bytes) -> bool:
    return content[:1] == b"\x80" and 2 <= content[1] <= 5 and content.endswith(b".")


def jsonable(key: str, metadata: Mapping[str, Any]) -> Any:
    """Return metadata as JSON, in the form of files; values that cannot be saved by their repr."""
    try:
        return json.loads(encode_metadata(key, entry_from_metadata(metadata)))
    except (TypeError, ValueError):
        return {name: repr(item) for name, item in metadata.items()}
