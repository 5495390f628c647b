"""Backends of the frameworks on a store in a file: what processes share, and the path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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
from tests.sqlite.cache_process import CacheProcess, Call


@pytest.fixture(scope="module")
def process() -> Iterator[CacheProcess]:
    with CacheProcess() as process:
        yield process


@pytest.fixture
def other(process: CacheProcess, path: Path) -> Iterator[CacheProcess]:
    """Another process, which uses the file as a cache of the codec "raw"."""
    yield process.open(path, codec="raw")
    process.close()


def keys(call: Call, cache: Cache[bytes]) -> list[str]:
    return sorted(cache)


def clear(call: Call, cache: Cache[bytes]) -> None:
    cache.clear()


def test_cachelib(path: Path, other: CacheProcess) -> None:
    cache = cachelib.LatchstoreCache(threshold=3, path=path)
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


def test_cachelib_takes_a_cache_or_a_path(path: Path) -> None:
    with pytest.raises(TypeError, match="give it or a path"):
        cachelib.LatchstoreCache(cache=Cache(codec="raw"), path=path)


def test_flask_caching(path: Path, other: CacheProcess) -> None:
    app = Flask(__name__)
    config = {
        "CACHE_TYPE": "latchstore.backends.flask_caching.LatchstoreCache",
        "CACHE_OPTIONS": {"path": path},
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


def test_dogpile(path: Path, other: CacheProcess) -> None:
    name, module = "latchstore.file_test", LatchstoreBackend.__module__
    register_backend(name, module, LatchstoreBackend.__name__)  # type: ignore[no-untyped-call]
    region = make_region()
    region.configure("latchstore.file_test", arguments={"path": str(path), "max_entries": 2, "ttl": 60})
    region.set_multi({"a": 1, "b": 2})
    assert region.get_or_create("a", lambda: 0) == 1
    region.set("c", 3)
    assert other.run(keys) == ["a", "c"]
    other.run(clear)
    assert region.get("c") is NO_VALUE
    region.backend.cache.store.close()


class TestDjango:
    @pytest.fixture
    def cache(self, path: Path) -> Iterator[Any]:
        # Caches of the same file in one process are one.
        cache = self.handler(path)["default"]
        yield cache
        cache.cache.store.close()

    def handler(self, path: Path | str) -> CacheHandler:
        backend = "latchstore.backends.django.LatchstoreFileCache"
        return CacheHandler(
            {"default": {"BACKEND": backend, "LOCATION": str(path), "OPTIONS": {"MAX_ENTRIES": 3}}}
        )

    def test_what_all_processes_see(self, path: Path, cache: Any, other: CacheProcess) -> None:
        cache.set("a", {1}, timeout=60)
        assert cache.add("b", 1)
        assert not cache.add("b", 2)
        assert cache.incr("b", 5) == 6
        assert cache.get_or_set("c", lambda: 7) == 7
        assert other.run(keys) == [":1:a", ":1:b", ":1:c"]
        cache.set_many({"d": 4, "e": 5})
        assert len(other.run(keys)) == 3
        assert self.handler(path)["default"].get("e") == 5
        other.run(clear)
        assert cache.get_many(["d", "e"]) == {}

    def test_options(self, path: Path, cache: Any) -> None:
        assert cache.cache.max_entries == 3
        with pytest.raises(ImproperlyConfigured, match="path of a file"):
            self.handler("")["default"]
