"""Backends of the frameworks on a store that processes share, each by the path or URL of that.

A test module imports all, and has the fixtures `location`, which is one, and `place`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("cachelib", reason="needs latchstore[flask]")
pytest.importorskip("django", reason="needs latchstore[django]")
pytest.importorskip("dogpile.cache", reason="needs latchstore[dogpile]")
pytest.importorskip("flask_caching", reason="needs latchstore[flask]")

from django.core.cache import CacheHandler
from django.core.exceptions import ImproperlyConfigured
from dogpile.cache import make_region, register_backend
from dogpile.cache.api import NO_VALUE
from flask import Flask
from flask_caching import Cache as FlaskCache

from latchstore import Cache
from latchstore.backends import cachelib
from latchstore.backends.dogpile import LatchstoreBackend
from tests.shared_caches.cache_process import CacheProcess, Call, Place


def keys(call: Call, cache: Cache[bytes]) -> list[str]:
    return sorted(cache)


def clear(call: Call, cache: Cache[bytes]) -> None:
    cache.clear()


class BackendsContract:
    """What the classes below have in common."""

    @pytest.fixture
    def other(self, processes: list[CacheProcess], place: Place) -> Iterator[CacheProcess]:
        """Another process, which uses the store as a cache of the codec "raw"."""
        yield processes[0].open(place, codec="raw")
        processes[0].close()


class LibrariesContract(BackendsContract):
    def test_cachelib(self, location: str, other: CacheProcess) -> None:
        cache = cachelib.LatchstoreCache(threshold=3, path=location)
        assert cache.add("a", [1])
        assert not cache.add("a", [2])
        assert cache.set_many({"b": 1, "c": 2}) == ["b", "c"]
        assert cache.inc("b", 2) == 3
        assert (cache.get("a"), cache.get("b")) == ([1], 3)
        assert other.run(keys) == ["a", "b", "c"]
        cache.set("d", 4)
        assert len(other.run(keys)) == 3
        other.run(clear)
        assert not cache.has("d")
        cache.cache.store.close()

    def test_cachelib_takes_a_cache_or_a_path(self, location: str) -> None:
        with pytest.raises(TypeError, match="give either cache or path"):
            cachelib.LatchstoreCache(cache=Cache(codec="raw"), path=location)

    def test_flask_caching(self, location: str, other: CacheProcess) -> None:
        app = Flask(__name__)
        config = {
            "CACHE_TYPE": "latchstore.backends.flask_caching.LatchstoreCache",
            "CACHE_OPTIONS": {"path": location},
            "CACHE_THRESHOLD": 10,
        }
        cache = FlaskCache(app, config=config)
        calls: list[int] = []

        @cache.memoize()
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        with app.app_context():
            assert [double(2), double(2)] == [4, 4]
            assert calls == [2]
            assert len(other.run(keys)) == 2
            other.run(clear)
            assert double(2) == 4
            assert calls == [2, 2]
        backend: Any = cache.cache
        assert backend.cache.max_entries == 10
        backend.cache.store.close()

    def test_dogpile(self, location: str, other: CacheProcess) -> None:
        name, module = "latchstore.shared_test", LatchstoreBackend.__module__
        register_backend(name, module, LatchstoreBackend.__name__)  # type: ignore[no-untyped-call]
        region = make_region()
        region.configure("latchstore.shared_test", arguments={"path": location, "max_entries": 2, "ttl": 60})
        region.set_multi({"a": 1, "b": 2})
        assert region.get_or_create("a", lambda: 0) == 1
        region.set("c", 3)
        assert other.run(keys) == ["a", "c"]
        other.run(clear)
        assert region.get("c") is NO_VALUE
        region.backend.cache.store.close()


class DjangoContract(BackendsContract):
    @pytest.fixture
    def cache(self, location: str) -> Iterator[Any]:
        # Caches of the same place in one process are one.
        cache = self.handler(location)["default"]
        yield cache
        cache.cache.store.close()

    def handler(self, location: str) -> CacheHandler:
        backend = "latchstore.backends.django.LatchstoreSharedCache"
        return CacheHandler(
            {"default": {"BACKEND": backend, "LOCATION": location, "OPTIONS": {"MAX_ENTRIES": 3}}}
        )

    def test_what_all_processes_see(self, location: str, cache: Any, other: CacheProcess) -> None:
        cache.set("a", {1}, timeout=60)
        assert cache.add("b", 1)
        assert not cache.add("b", 2)
        assert cache.incr("b", 5) == 6
        assert cache.get_or_set("c", lambda: 7) == 7
        assert other.run(keys) == [":1:a", ":1:b", ":1:c"]
        cache.set_many({"d": 4, "e": 5})
        assert len(other.run(keys)) == 3
        assert self.handler(location)["default"].get("e") == 5
        other.run(clear)
        assert cache.get_many(["d", "e"]) == {}

    def test_options(self, location: str, cache: Any) -> None:
        assert cache.cache.max_entries == 3
        with pytest.raises(ImproperlyConfigured, match="path of a file, or the URL"):
            self.handler("")["default"]
