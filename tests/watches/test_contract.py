"""`DictMemoryStore` keeps the contract of watches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.contract.waiting import WaitForContract
from tests.contract.watches import FullBufferContract, WatchContract
from tests.memory_stores import MemoryStores


class TestWatches(MemoryStores, WatchContract):
    @pytest.fixture
    def compacting_store(self) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), history=3) as store:
            yield store


class TestFullBuffers(MemoryStores, FullBufferContract): ...


class TestWaitFor(MemoryStores, WaitForContract): ...
