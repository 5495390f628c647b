"""`DictMemoryStore` keeps the contract of optimistic transactions."""

from __future__ import annotations

from tests.contract.optimistic import ConflictContract, OptimisticWritingContract
from tests.memory_stores import IndexedMemoryStores


class TestConflicts(IndexedMemoryStores, ConflictContract): ...


class TestWriting(IndexedMemoryStores, OptimisticWritingContract): ...
