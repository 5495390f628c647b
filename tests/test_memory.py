"""`DictMemoryStore` keeps the contract, with and without indexes; and what is its own besides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.writing import WritingContract

#: Some of the metadata items that the contract's tests ask for.
INDEXES = ("name", "number", "list", "kind", "shared")


class MemoryStores:
    """The store of each test in this module: once without indexes, once with some."""

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"])
    def store(self, request: pytest.FixtureRequest) -> Iterator[DictMemoryStore]:
        with DictMemoryStore(EventManager(), indexes=request.param) as store:
            yield store


class TestReading(MemoryStores, ReadingContract): ...


class TestValues(MemoryStores, ValueContract): ...


class TestWriting(MemoryStores, WritingContract): ...


class TestManyKeysReading(MemoryStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(MemoryStores, ManyKeysWritingContract): ...
