"""The store of each test, which must be free after it."""

# What raises is often the end of a block, so `pytest.raises` has to stand around more than one statement.

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import (
    DictMemoryStore,
    EventManager,
)


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store
