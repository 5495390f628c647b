"""A `RedisStore` for the contract's tests, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, Ordered, RedisStore
from tests.contract.stores import StoreContract
from tests.redis.servers import Server

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES = ("kind", *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")))


@pytest.mark.each_server
class RedisStores(StoreContract):
    """The store of each test: without indexes, and with some."""

    any_metadata = False

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"])
    def store(
        self, request: pytest.FixtureRequest, redis_server: Server, namespace: str
    ) -> Iterator[RedisStore]:
        with RedisStore(
            redis_server.url, EventManager(), namespace=namespace, indexes=request.param
        ) as store:
            yield store
