"""The Flask-Caching backend in a small app, beside Flask-Caching's own tests (test_suites.py)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("flask_caching", reason="needs latchstore[flask]")

from flask import Flask
from flask_caching import Cache as FlaskCache

from latchstore import Cache
from latchstore.backends.flask_caching import LatchstoreCache

BACKEND = "latchstore.backends.flask_caching.LatchstoreCache"
THREADS = 8
TIMEOUT = 30


class App:
    """A Flask app with a cached view, and one that shows what a memoized function returns."""

    def __init__(self, **config: Any) -> None:
        self.flask = Flask("tested")
        self.flask.config.update({"TESTING": True, "CACHE_TYPE": BACKEND, **config})
        self.cache = FlaskCache(self.flask)
        self.calls: list[str] = []

        @self.flask.get("/page")
        @self.cache.cached(timeout=60, query_string=True)
        def page() -> str:
            self.calls.append("page")
            return f"page {len(self.calls)}"

        @self.cache.memoize(timeout=60)
        def squared(number: int) -> int:
            self.calls.append(f"squared {number}")
            return number * number

        self.squared = squared
        self.flask.get("/squared/<int:number>", endpoint="squared")(lambda number: str(squared(number)))

    def get(self, path: str) -> str:
        return self.flask.test_client().get(path).get_data(as_text=True)

    @property
    def backend(self) -> LatchstoreCache:
        backend: LatchstoreCache = self.flask.extensions["cache"][self.cache]
        return backend


def test_the_configuration_makes_the_cache() -> None:
    app = App(
        CACHE_THRESHOLD=7, CACHE_DEFAULT_TIMEOUT=9, CACHE_OPTIONS={"max_bytes": 10_000, "policy": "lru"}
    )
    assert type(app.backend) is LatchstoreCache
    assert (app.backend.cache.max_entries, app.backend.cache.max_bytes) == (7, 10_000)
    assert app.backend.default_timeout == 9


def test_cached_views() -> None:
    app = App()
    assert [app.get("/page"), app.get("/page"), app.get("/page?a=1")] == ["page 1", "page 1", "page 2"]
    app.cache.clear()
    assert app.get("/page") == "page 3"


def test_memoized_functions() -> None:
    app = App()
    assert [app.get("/squared/3"), app.get("/squared/3"), app.get("/squared/4")] == ["9", "9", "16"]
    assert app.calls == ["squared 3", "squared 4"]
    with app.flask.app_context():
        app.cache.delete_memoized(app.squared, 3)
    assert [app.get("/squared/3"), app.get("/squared/4")] == ["9", "16"]
    assert app.calls == ["squared 3", "squared 4", "squared 3"]
    with app.flask.app_context():
        app.cache.delete_memoized(app.squared)
    app.get("/squared/4")
    assert app.calls[-1] == "squared 4"
    assert len(app.calls) == 4


def test_apps_share_a_cache_that_is_given_to_both() -> None:
    shared = Cache(codec="raw", max_entries=100)
    first, second = (App(CACHE_OPTIONS={"cache": shared}) for _ in range(2))
    assert [first.get("/page"), second.get("/page")] == ["page 1", "page 1"]
    assert second.calls == []


def test_threads_of_a_server_lose_no_increment() -> None:
    app = App()
    app.flask.get("/count", endpoint="count")(lambda: str(app.backend.inc("count")))
    barrier = threading.Barrier(THREADS)

    def ask(_: int) -> list[int]:
        barrier.wait(TIMEOUT)
        return [int(app.get("/count")) for _ in range(20)]

    with ThreadPoolExecutor(THREADS) as pool:
        counts = [count for counts in pool.map(ask, range(THREADS)) for count in counts]
    assert sorted(counts) == list(range(1, 20 * THREADS + 1))


def test_the_cachelib_backend_is_one_of_flask_caching_too() -> None:
    app = App(CACHE_TYPE="latchstore.backends.cachelib.LatchstoreCache", CACHE_OPTIONS={"threshold": 5})
    assert [app.get("/page"), app.get("/page")] == ["page 1", "page 1"]
    assert app.backend.cache.max_entries == 5
