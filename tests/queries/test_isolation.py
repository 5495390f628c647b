"""`DictMemoryStore` keeps the contract of what a query in order shows of others' changes."""

from __future__ import annotations

from tests.contract.ordered_isolation import OrderedIsolationContract
from tests.memory_stores import IndexedMemoryStores


class TestOrderedIsolation(IndexedMemoryStores, OrderedIsolationContract): ...
