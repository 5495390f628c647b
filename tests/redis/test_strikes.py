"""An exception at any place of a call on a server where CPython raises one, those of redis-py's included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import redis.connection

from latchstore import EventManager, RedisStore
from tests.contract.struck_calls import StruckCallContract
from tests.redis.servers import Server


class TestStruckCalls(StruckCallContract):
    stride = 2
    files = (Path(redis.connection.__file__),)

    @pytest.fixture
    def open_store(self, redis_server: Server, namespace: str) -> Callable[[], RedisStore]:
        return partial(_open, redis_server.url, namespace)


def _open(url: str, namespace: str) -> RedisStore:
    return RedisStore(url, EventManager(), namespace=namespace, indexes=["it"], lock_timeout=5)
