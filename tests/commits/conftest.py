"""A store that is checked at the end of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore
from latchstore.engine.inspection import check
from tests.commits.kinds import make_store


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    store = make_store()
    yield store
    check(store)
