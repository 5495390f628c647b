"""`SqliteStore` keeps the contract, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, Ordered, SqliteStore
from tests.contract.bad_input import BadInputContract, BadTimeoutContract
from tests.contract.conditions import ConditionContract
from tests.contract.delivery import DeliveryContract
from tests.contract.events import EventContract
from tests.contract.evicting import EvictContract
from tests.contract.files import ToFileContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.queries import QueryContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.transactions import SharedTransactionContract, TransactionContract
from tests.contract.writing import WritingContract

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES = ("kind", *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")))


class SqliteStores:
    """The store of each test in this module."""

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"])
    def store(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[SqliteStore]:
        with SqliteStore(
            tmp_path_factory.mktemp("store") / "file", EventManager(), indexes=request.param, durability="off"
        ) as store:
            yield store


class TestReading(SqliteStores, ReadingContract): ...


class TestValues(SqliteStores, ValueContract): ...


class TestWriting(SqliteStores, WritingContract): ...


class TestManyKeysReading(SqliteStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(SqliteStores, ManyKeysWritingContract): ...


class TestQueries(SqliteStores, QueryContract): ...


class TestToFile(SqliteStores, ToFileContract): ...


class TestBadInput(SqliteStores, BadInputContract): ...


class TestBadTimeout(SqliteStores, BadTimeoutContract): ...


class TestTransaction(SqliteStores, TransactionContract): ...


class TestSharedTransaction(SqliteStores, SharedTransactionContract): ...


class TestEvent(SqliteStores, EventContract): ...


class TestDelivery(SqliteStores, DeliveryContract): ...


class TestCondition(SqliteStores, ConditionContract): ...


class TestEvict(SqliteStores, EvictContract): ...
