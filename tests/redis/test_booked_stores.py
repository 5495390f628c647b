"""Writes to a namespace on which caches are open: the contract is kept, and the books are right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import Cache, RedisStore
from latchstore.cache.inspection import check
from tests.contract.block_contents import BlockContentContract
from tests.contract.evicting import EvictContract
from tests.contract.many_keys import ManyKeysWritingContract
from tests.contract.writing import WritingContract
from tests.redis.servers import Server
from tests.redis.test_caches import open_server


class Booked:
    """The store of each test."""

    any_metadata = False

    @pytest.fixture
    def store(self, redis_server: Server, namespace: str) -> Iterator[RedisStore]:
        with open_server(redis_server.url, namespace) as store, Cache(store) as cache:
            some = cache.namespace("k", max_bytes=10**9)
            yield store
            check(cache)
            check(some)


class TestWriting(Booked, WritingContract): ...


class TestManyKeysWriting(Booked, ManyKeysWritingContract): ...


class TestEvicting(Booked, EvictContract): ...


class TestBlockContents(Booked, BlockContentContract): ...
