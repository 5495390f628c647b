"""Event loops, and stores of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, SqliteStore
from latchstore.engine.transactional_store import TransactionalStore
from tests import event_loops

run = event_loops.run


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TransactionalStore]:
    """Make a store, of which reads wait for nobody, or for a file."""
    made: TransactionalStore
    if request.param == "memory":
        made = DictMemoryStore(EventManager())
    else:
        made = SqliteStore(tmp_path / "store", EventManager(), durability="off")
    with contextlib.closing(made):
        yield made


@pytest.fixture
def cache(store: TransactionalStore) -> Cache[Any]:
    """Make a cache on the store."""
    return Cache(store, max_entries=1000, codec="json")
