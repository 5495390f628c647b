"""cachelib's own tests, on our backend. Run by test_suites.py, in a process of its own.

``test_simple_cache`` and what it imports are of cachelib's source distribution, whose ``tests`` directory is
on the path. Its class has all that cachelib asks of every cache, and how SimpleCache is to stand threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_simple_cache import SillySerializer
from test_simple_cache import TestSimpleCache as SimpleCacheTests

from latchstore import Cache
from latchstore.backends.cachelib import LatchstoreCache


class BackendOfTests(LatchstoreCache):
    """The backend, with the name that the tests look for how many entries there are by."""

    @property
    def _cache(self) -> Cache:
        return self.cache


class BackendWithSerializer(BackendOfTests):
    serializer = SillySerializer()


@pytest.fixture(autouse=True, params=[BackendOfTests, BackendWithSerializer])
def cache_factory(request: pytest.FixtureRequest) -> None:
    factory: Callable[..., Any] = lambda self, *args, **kwargs: request.param(*args, **kwargs)  # noqa: E731
    request.cls.cache_factory = factory


class TestLatchstoreCache(SimpleCacheTests):
    # In what order SimpleCache lets go of what, and an attribute of its own.
    test_prune_old_entries = None
    test_threshold_zero_defaults_to_500 = None


del SimpleCacheTests
