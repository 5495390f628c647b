"""`DictMemoryStore` keeps the contract of snapshots."""

from __future__ import annotations

from tests.contract.snapshots import ManySnapshotsContract, SnapshotContract
from tests.memory_stores import IndexedMemoryStores, MemoryStores


class TestSnapshots(IndexedMemoryStores, SnapshotContract): ...


class TestManySnapshots(MemoryStores, ManySnapshotsContract): ...
