"""`SqliteStore` keeps the contract, with and without indexes."""

from __future__ import annotations

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
from tests.sqlite.sqlite_stores import SqliteStores


class TestBadInput(SqliteStores, BadInputContract): ...


class TestBadTimeout(SqliteStores, BadTimeoutContract): ...


class TestCondition(SqliteStores, ConditionContract): ...


class TestDelivery(SqliteStores, DeliveryContract): ...


class TestEvent(SqliteStores, EventContract): ...


class TestEvict(SqliteStores, EvictContract): ...


class TestToFile(SqliteStores, ToFileContract): ...


class TestManyKeysReading(SqliteStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(SqliteStores, ManyKeysWritingContract): ...


class TestQuery(SqliteStores, QueryContract): ...


class TestReading(SqliteStores, ReadingContract): ...


class TestValue(SqliteStores, ValueContract): ...


class TestSharedTransaction(SqliteStores, SharedTransactionContract): ...


class TestTransaction(SqliteStores, TransactionContract): ...


class TestWriting(SqliteStores, WritingContract): ...
