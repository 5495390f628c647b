"""A store, and a way to provoke conflicts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    """Two documents and an image."""
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
        store.multiset(
            ["doc/1", "doc/2", "image"],
            [
                (b"one", {"kind": "document", "n": 1}),
                (b"two", {"kind": "document", "n": 2}),
                (b"image", {"kind": "image", "tags": ["x"]}),
            ],
        )
        yield store
