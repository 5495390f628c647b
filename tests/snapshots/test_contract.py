"""`DictMemoryStore` keeps the contract of snapshots."""

from __future__ import annotations

from tests.contract.snapshots import ManySnapshotsContract, SnapshotContract
from tests.memory_stores import MemoryStores, MemoryStoresInTurn


class TestSnapshots(MemoryStoresInTurn, SnapshotContract): ...


class TestManySnapshots(MemoryStores, ManySnapshotsContract): ...
