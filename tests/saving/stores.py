"""Stores that are saved, and what of them must come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latchstore import DictMemoryStore, EventManager

TIMEOUT = 20.0


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def facts(store: DictMemoryStore) -> dict[str, Any]:
    found = {}
    for key in store.glob("*"):
        value = store.get(key)
        data = value.data.read()
        found[key] = (data, value.metadata, value.created, value.modified, value.revision)
    return found


def saved(path: Path) -> bytes:
    store = new_store()
    for number in range(300):
        store.set(f"k{number}", (b"x" * 100, {"n": number}))
    store.save(path)
    return path.read_bytes()
