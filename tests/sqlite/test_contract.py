"""`SqliteStore` keeps the contract, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore import EventManager, SqliteStore
from tests.contract.attempts import AttemptsContract
from tests.contract.bad_input import BadInputContract, BadTimeoutContract
from tests.contract.block_contents import BlockContentContract
from tests.contract.block_ends import BlockEndContract
from tests.contract.block_errors import BlockErrorContract
from tests.contract.blocks_left_open import BlockLeftOpenContract
from tests.contract.conditions import ConditionContract
from tests.contract.delivery import DeliveryContract
from tests.contract.events import EventContract
from tests.contract.evicting import EvictContract
from tests.contract.files import ToFileContract
from tests.contract.forking import ForkContract
from tests.contract.isolation import IsolationContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.near import NearContract
from tests.contract.nothing_is_lost import NothingIsLostContract
from tests.contract.optimistic import ConflictContract, OptimisticWritingContract
from tests.contract.ordered_isolation import OrderedIsolationContract
from tests.contract.queries import QueryContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.revisions import CurrentTransactionContract, RevisionContract
from tests.contract.sharing import SharingContract
from tests.contract.snapshots import ManySnapshotsContract, SnapshotContract
from tests.contract.transactions import SharedTransactionContract, TransactionContract
from tests.contract.waiting import WaitForContract
from tests.contract.watches import FullBufferContract, WatchContract
from tests.contract.writing import WritingContract
from tests.sqlite.sqlite_stores import IndexedSqliteStores, SqliteStores, SqliteStoresInTurn


class TestBadInput(SqliteStores, BadInputContract): ...


class TestBadTimeout(SqliteStores, BadTimeoutContract): ...


class TestCondition(SqliteStoresInTurn, ConditionContract): ...


class TestDelivery(SqliteStores, DeliveryContract): ...


class TestEvent(SqliteStores, EventContract): ...


class TestEvict(SqliteStoresInTurn, EvictContract): ...


class TestToFile(SqliteStores, ToFileContract): ...


class TestManyKeysReading(SqliteStoresInTurn, ManyKeysReadingContract): ...


class TestManyKeysWriting(SqliteStoresInTurn, ManyKeysWritingContract): ...


class TestQuery(IndexedSqliteStores, QueryContract): ...


class TestReading(SqliteStores, ReadingContract): ...


class TestValue(SqliteStores, ValueContract): ...


class TestSharedTransaction(SqliteStores, SharedTransactionContract): ...


class TestTransaction(SqliteStores, TransactionContract): ...


class TestWriting(SqliteStoresInTurn, WritingContract): ...


class TestAttempts(SqliteStores, AttemptsContract): ...


class TestWatch(SqliteStores, WatchContract):
    @pytest.fixture
    def compacting_store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        with SqliteStore(tmp_path / "file", EventManager(), history=3, durability="off") as store:
            yield store


class TestFullBuffer(SqliteStores, FullBufferContract): ...


class TestOrderedIsolation(IndexedSqliteStores, OrderedIsolationContract): ...


class TestConflict(SqliteStoresInTurn, ConflictContract): ...


class TestOptimisticWriting(SqliteStoresInTurn, OptimisticWritingContract): ...


class TestBlockError(SqliteStores, BlockErrorContract): ...


class TestNothingIsLost(SqliteStores, NothingIsLostContract): ...


class TestBlockEnd(SqliteStores, BlockEndContract): ...


class TestWaitFor(SqliteStores, WaitForContract): ...


class TestBlockLeftOpen(SqliteStores, BlockLeftOpenContract): ...


class TestSnapshot(SqliteStoresInTurn, SnapshotContract): ...


class TestManySnapshots(SqliteStores, ManySnapshotsContract): ...


class TestBlockContent(SqliteStoresInTurn, BlockContentContract): ...


class TestIsolation(SqliteStoresInTurn, IsolationContract): ...


class TestRevision(SqliteStores, RevisionContract): ...


class TestCurrentTransaction(SqliteStores, CurrentTransactionContract): ...


class TestFork(SqliteStores, ForkContract):
    shares = True


class TwoStores:
    """Two stores over one file, which are to each other what those of two processes are."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        with SqliteStore(tmp_path / "file", EventManager(), durability="off") as store:
            yield store

    @pytest.fixture
    def beside(self, store: SqliteStore, tmp_path: Path) -> Iterator[SqliteStore]:
        with SqliteStore(tmp_path / "file", EventManager(), durability="off") as beside:
            yield beside


class TestSharing(TwoStores, SharingContract): ...


class TestNear(TwoStores, NearContract): ...
