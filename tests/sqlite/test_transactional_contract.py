"""`SqliteStore` keeps the contract of transactions, snapshots, watches and revisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore import EventManager, Ordered, SqliteStore
from tests.contract.attempts import AttemptsContract
from tests.contract.block_contents import BlockContentContract
from tests.contract.block_ends import BlockEndContract
from tests.contract.block_errors import BlockErrorContract
from tests.contract.blocks_left_open import BlockLeftOpenContract
from tests.contract.isolation import IsolationContract
from tests.contract.nothing_is_lost import NothingIsLostContract
from tests.contract.optimistic import ConflictContract, OptimisticWritingContract
from tests.contract.ordered_isolation import OrderedIsolationContract
from tests.contract.revisions import CurrentTransactionContract, RevisionContract
from tests.contract.snapshots import ManySnapshotsContract, SnapshotContract
from tests.contract.waiting import WaitForContract
from tests.contract.watches import FullBufferContract, WatchContract


class SqliteStores:
    """The store of each test in this module."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        indexes = ("kind", Ordered("due"), Ordered("key"))
        with SqliteStore(tmp_path / "file", EventManager(), indexes=indexes, durability="off") as store:
            yield store


class TestBlockContent(SqliteStores, BlockContentContract): ...


class TestBlockEnds(SqliteStores, BlockEndContract): ...


class TestBlockErrors(SqliteStores, BlockErrorContract): ...


class TestBlocksLeftOpen(SqliteStores, BlockLeftOpenContract): ...


class TestAttempts(SqliteStores, AttemptsContract): ...


class TestNothingIsLost(SqliteStores, NothingIsLostContract): ...


class TestConflicts(SqliteStores, ConflictContract): ...


class TestOptimisticWriting(SqliteStores, OptimisticWritingContract): ...


class TestIsolation(SqliteStores, IsolationContract): ...


class TestOrderedIsolation(SqliteStores, OrderedIsolationContract): ...


class TestRevisions(SqliteStores, RevisionContract): ...


class TestCurrentTransaction(SqliteStores, CurrentTransactionContract): ...


class TestSnapshots(SqliteStores, SnapshotContract): ...


class TestManySnapshots(SqliteStores, ManySnapshotsContract): ...


class TestWatches(SqliteStores, WatchContract):
    @pytest.fixture
    def compacting_store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        with SqliteStore(tmp_path / "small", EventManager(), durability="off", history=10) as store:
            yield store


class TestFullBuffers(SqliteStores, FullBufferContract): ...


class TestWaitFor(SqliteStores, WaitForContract): ...
