"""A `RedisStore` for the contract's tests, on each server, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, Ordered, RedisStore
from tests.contract.stores import StoreContract
from tests.redis.servers import Server

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES: tuple[str | Ordered, ...] = (
    "kind",
    *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")),
)


class RedisStores(StoreContract):
    """The store of each test, where neither the server nor indexes make a difference: it has some."""

    any_metadata = False
    indexes: tuple[str | Ordered, ...] = INDEXES

    @pytest.fixture
    def store(self, redis_server: Server, namespace: str) -> Iterator[RedisStore]:
        with RedisStore(redis_server.url, EventManager(), namespace=namespace, indexes=self.indexes) as store:
            yield store


@pytest.mark.each_server
class ServedRedisStores(RedisStores):
    """Where a server has to do what is tested: Redis for a store with indexes, Valkey for one without."""

    @pytest.fixture(autouse=True)
    def _indexes(self, redis_server: Server) -> None:
        self.indexes = INDEXES if redis_server.kind == "redis" else ()


@pytest.mark.each_server
class IndexedRedisStores(RedisStores):
    """Where the indexes are what is tested: each server for stores with and without."""

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"], autouse=True)
    def _indexes(self, request: pytest.FixtureRequest) -> None:
        self.indexes = request.param
