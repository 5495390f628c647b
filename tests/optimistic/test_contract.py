"""`DictMemoryStore` keeps the contract of optimistic transactions."""

from __future__ import annotations

from tests.contract.optimistic import ConflictContract, OptimisticWritingContract
from tests.memory_stores import MemoryStoresInTurn


class TestConflicts(MemoryStoresInTurn, ConflictContract): ...


class TestWriting(MemoryStoresInTurn, OptimisticWritingContract): ...
