"""A store, its clock and a bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.engine.inspection import check


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store
        check(store)
