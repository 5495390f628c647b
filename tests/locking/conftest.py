"""A store whose locks are free at the end of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.locking.elsewhere import LOCKS, SHORT, check_all_free


@pytest.fixture(params=LOCKS, ids=lambda lock: lock.__name__)
def store(request: pytest.FixtureRequest) -> Iterator[DictMemoryStore]:
    store = DictMemoryStore(EventManager(), lock_class=request.param, lock_timeout=SHORT)
    yield store
    check_all_free(store)
