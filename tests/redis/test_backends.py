"""Backends of the frameworks on a server; the tests are in tests/shared_caches."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from latchstore.backends import cachelib
from tests.redis.servers import Server
from tests.redis.test_caches import open_server
from tests.shared_caches.backends import DjangoContract, LibrariesContract
from tests.shared_caches.cache_process import Place, processes

__all__ = ["processes"]

pytestmark = pytest.mark.each_server


@pytest.fixture
def place(redis_server: Server, namespace: str) -> Place:
    return partial(open_server, redis_server.url, namespace)


@pytest.fixture
def location(redis_server: Server, namespace: str) -> str:
    return f"{redis_server.url}?namespace={namespace}"


class TestLibraries(LibrariesContract):
    def test_what_else_the_url_has_is_for_the_client(self, redis_server: Server, namespace: str) -> None:
        urls = [f"{redis_server.url}?db={number}&namespace={namespace}" for number in (0, 1)]
        caches: list[Any] = [cachelib.LatchstoreCache(path=url) for url in urls]
        caches[0].set("a", 1)
        assert [cache.get("a") for cache in caches] == [1, None]
        for cache in caches:
            cache.cache.store.close()

    def test_a_url_without_a_namespace(self, redis_server: Server, place: Place) -> None:
        cache = cachelib.LatchstoreCache(path=redis_server.url)
        assert repr(cache.cache.store).startswith("<RedisStore {latchstore} on unix:")
        cache.cache.store.close()


class TestDjango(DjangoContract): ...
