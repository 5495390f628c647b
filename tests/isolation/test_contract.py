"""No anomaly is seen on a `DictMemoryStore`, with any index."""

from __future__ import annotations

from tests.contract.isolation import IsolationContract
from tests.memory_stores import MemoryStoresInTurn


class TestIsolation(MemoryStoresInTurn, IsolationContract): ...
