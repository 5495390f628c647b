"""`DictMemoryStore` keeps the contract of revisions and of forked children."""

from __future__ import annotations

from tests.contract.forking import ForkContract
from tests.contract.revisions import CurrentTransactionContract, RevisionContract
from tests.memory_stores import MemoryStores


class TestRevisions(MemoryStores, RevisionContract): ...


class TestCurrentTransaction(MemoryStores, CurrentTransactionContract): ...


class TestFork(MemoryStores, ForkContract): ...
