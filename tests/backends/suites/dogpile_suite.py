"""dogpile.cache's own tests, on our backend. Run by test_suites.py, in a process of its own."""

from __future__ import annotations

from typing import Any

from dogpile.cache import register_backend
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

from latchstore import Cache

BACKEND = "latchstore.tested"

register_backend(BACKEND, "latchstore.backends.dogpile", "LatchstoreBackend")


def configured(**arguments: Any) -> dict[str, Any]:
    return {"arguments": arguments}


class TestBackend(_GenericBackendTestSuite):
    backend = BACKEND
    config_args = configured(max_entries=1_000)


class TestBackendWithTimeToLive(TestBackend):
    config_args = configured(max_bytes=1_000_000, ttl=60.0, policy="lru")


class TestSerializer(_GenericSerializerTestSuite, TestBackend):
    pass


class TestMutex(_GenericMutexTestSuite):
    backend = BACKEND
    # Of one cache, as mutexes are.
    config_args = configured(cache=Cache(codec="raw"))
