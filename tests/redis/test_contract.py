"""`RedisStore` keeps the contract, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, RedisStore
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
from tests.redis.redis_stores import ONE_SERVER_EACH, IndexedRedisStores, RedisStores, ServedRedisStores
from tests.redis.servers import Server


class TestBadInput(RedisStores, BadInputContract): ...


class TestBadTimeout(RedisStores, BadTimeoutContract): ...


class TestCondition(ServedRedisStores, ConditionContract): ...


class TestDelivery(RedisStores, DeliveryContract): ...


class TestEvent(ServedRedisStores, EventContract): ...


class TestEvict(ServedRedisStores, EvictContract): ...


class TestToFile(RedisStores, ToFileContract): ...


class TestManyKeysReading(ServedRedisStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(ServedRedisStores, ManyKeysWritingContract): ...


class TestQuery(IndexedRedisStores, QueryContract): ...


class TestReading(ServedRedisStores, ReadingContract): ...


class TestValue(RedisStores, ValueContract): ...


class TestSharedTransaction(ServedRedisStores, SharedTransactionContract): ...


class TestTransaction(ServedRedisStores, TransactionContract): ...


class TestWriting(ServedRedisStores, WritingContract): ...


class TestAttempts(ServedRedisStores, AttemptsContract): ...


class TestWatch(ServedRedisStores, WatchContract):
    @pytest.fixture
    def compacting_store(self, redis_server: Server, namespace: str) -> Iterator[RedisStore]:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace, history=3) as store:
            yield store


class TestFullBuffer(ServedRedisStores, FullBufferContract): ...


class TestOrderedIsolation(IndexedRedisStores, OrderedIsolationContract): ...


class TestConflict(ServedRedisStores, ConflictContract): ...


class TestOptimisticWriting(ServedRedisStores, OptimisticWritingContract): ...


class TestBlockError(RedisStores, BlockErrorContract): ...


class TestNothingIsLost(ServedRedisStores, NothingIsLostContract): ...


class TestBlockEnd(RedisStores, BlockEndContract): ...


class TestWaitFor(RedisStores, WaitForContract): ...


class TestBlockLeftOpen(RedisStores, BlockLeftOpenContract): ...


class TestSnapshot(ServedRedisStores, SnapshotContract): ...


class TestManySnapshots(RedisStores, ManySnapshotsContract): ...


class TestBlockContent(ServedRedisStores, BlockContentContract): ...


class TestIsolation(ServedRedisStores, IsolationContract): ...


class TestRevision(ServedRedisStores, RevisionContract): ...


class TestCurrentTransaction(RedisStores, CurrentTransactionContract): ...


class TestFork(ServedRedisStores, ForkContract):
    shares = True


@pytest.mark.each_server
@ONE_SERVER_EACH
class TwoStores:
    """Two stores over one namespace, which are to each other what those of two processes are."""

    @pytest.fixture
    def store(self, redis_server: Server, namespace: str) -> Iterator[RedisStore]:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace) as store:
            yield store

    @pytest.fixture
    def beside(self, store: RedisStore, redis_server: Server, namespace: str) -> Iterator[RedisStore]:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace) as beside:
            yield beside


class TestSharing(TwoStores, SharingContract): ...


class TestNear(TwoStores, NearContract): ...
