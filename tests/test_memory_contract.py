"""`DictMemoryStore` keeps the contract of revisions."""

from __future__ import annotations

from tests.contract.revisions import CurrentTransactionContract, RevisionContract
from tests.memory_stores import MemoryStores


class TestRevisions(MemoryStores, RevisionContract): ...


class TestCurrentTransaction(MemoryStores, CurrentTransactionContract): ...
