"""A `RedisStore` for the contract's tests, on each server, with and without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import EventManager, Ordered, RedisStore
from tests.contract.stores import StoreContract
from tests.redis.servers import KINDS, Server, program

#: Some of the metadata items that the contract's tests ask for, and what is known of every entry.
INDEXES: tuple[str | Ordered, ...] = (
    "kind",
    *map(Ordered, ("name", "number", "list", "it", "key", "created", "modified", "revision")),
)

#: Has each case of a test that runs on each server run on one of them; on both if only one is there.
ONE_SERVER_EACH = (
    pytest.mark.in_turn("redis_server", len(KINDS)) if all(map(program, KINDS)) else pytest.mark.each_server
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
@ONE_SERVER_EACH
class ServedRedisStores(RedisStores):
    """Where a server has to do what is tested: Redis for a store with indexes, Valkey for one without.

    Each case on one of them.
    """

    @pytest.fixture(autouse=True)
    def _indexes(self, redis_server: Server) -> None:
        self.indexes = INDEXES if redis_server.kind == "redis" else ()


@pytest.mark.each_server
@ONE_SERVER_EACH
class IndexedRedisStores(RedisStores):
    """Where the indexes are what is tested: stores with and without, each case on one server."""

    @pytest.fixture(params=[(), INDEXES], ids=["plain", "indexed"], autouse=True)
    def _indexes(self, request: pytest.FixtureRequest) -> None:
        self.indexes = request.param
