"""A store to watch, and threads that read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from latchstore import DictMemoryStore
from tests.watches.reading import new_store


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with new_store(history=100) as store:
        yield store


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool
