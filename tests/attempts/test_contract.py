"""`DictMemoryStore` keeps the contract of attempts, with many threads as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.contract.attempts import AttemptsContract
from tests.contract.nothing_is_lost import NothingIsLostContract
from tests.memory_stores import MemoryStores


class TestAttempts(MemoryStores, AttemptsContract): ...


class TestNothingIsLost(MemoryStores, NothingIsLostContract):
    threads = 8
    times = 1_000
    moves = 1_000
    counts = 300

    @pytest.fixture
    def store(self) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), indexes=["kind"]) as store:
            yield store
