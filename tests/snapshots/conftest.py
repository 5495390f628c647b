"""A store with something in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.contract.snapshots import fill


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
        fill(store)
        yield store
