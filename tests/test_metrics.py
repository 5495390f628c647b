"""What Prometheus is told of caches: by the client's own registry, format, parser and HTTP server."""

from __future__ import annotations

import doctest
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs latchstore[prometheus]")

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from latchstore import Cache, metrics
from latchstore.engine.entry_facts import OVERHEAD
from latchstore.metrics import PrometheusCollector


@pytest.fixture
def registry() -> CollectorRegistry:
    # As the default registry of the client is made.
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def cache(clock: list[float]) -> Iterator[Cache]:
    """Return a cache that all has happened to that is counted."""
    with Cache(max_entries=3, max_bytes=10_000, codec="raw", clock=lambda: clock[0]) as cache:
        cache.set("a", b"1234", ttl=5.0)
        cache.get("a")
        cache.get("a")
        cache.get("missing")
        cache.get_or_load("b", lambda key: b"1")

        def fail(key: str) -> bytes:
            raise LookupError(key)

        with pytest.raises(LookupError):
            cache.get_or_load("c", fail)
        clock[0] = 5.0
        cache.sweep()
        for number in range(4):
            cache.set(f"full {number}", b"12")
        yield cache


def value(registry: CollectorRegistry, end: str, name: str = "default", **labels: str) -> float | None:
    return registry.get_sample_value(f"latchstore_cache_{end}", {"name": name, **labels})


def test_all_that_is_counted(registry: CollectorRegistry, cache: Cache) -> None:
    registry.register(PrometheusCollector(cache))
    stats = cache.stats()
    assert value(registry, "hits_total") == 2
    assert value(registry, "misses_total") == stats["misses"] == 3
    assert value(registry, "loads_total") == 1
    assert value(registry, "load_failures_total") == 1
    assert value(registry, "load_seconds_total") == stats["load_seconds"] > 0
    assert value(registry, "evictions_total", cause="expired") == 1
    assert value(registry, "evictions_total", cause="size") == stats["evictions"]["size"] >= 2
    assert value(registry, "evictions_total", cause="idle") == 0
    assert value(registry, "entries") == len(cache) == 3
    assert value(registry, "size_bytes") == 3 * (OVERHEAD + len("full 0") + 2)
    assert value(registry, "max_entries") == 3
    assert value(registry, "max_size_bytes") == 10_000


def test_a_scrape_tells_what_is_so_then(registry: CollectorRegistry) -> None:
    cache = Cache()
    registry.register(PrometheusCollector(cache))
    assert value(registry, "hits_total") == 0
    cache["key"] = 1
    assert cache["key"] == 1
    assert (value(registry, "hits_total"), value(registry, "entries")) == (1, 1)


def test_no_bound_is_no_sample(registry: CollectorRegistry) -> None:
    registry.register(PrometheusCollector(Cache()))
    assert value(registry, "max_entries") is None
    assert value(registry, "max_size_bytes") is None


def test_no_key_is_told(registry: CollectorRegistry) -> None:
    cache = Cache()
    cache["secret of user 7"] = 1
    registry.register(PrometheusCollector(cache))
    assert b"secret" not in generate_latest(registry)
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    assert labels == {"name", "cause"}


class TestSeveralCaches:
    def test_by_label(self, registry: CollectorRegistry) -> None:
        users, pages = Cache(max_entries=10), Cache(max_entries=20)
        collector = PrometheusCollector(users, name="users")
        collector.add(pages, name="pages")
        registry.register(collector)
        assert (value(registry, "max_entries", "users"), value(registry, "max_entries", "pages")) == (10, 20)
        # One header for both, as the format wants it.
        assert generate_latest(registry).count(b"# TYPE latchstore_cache_hits_total counter") == 1

    def test_by_prefix(self, registry: CollectorRegistry) -> None:
        registry.register(PrometheusCollector(Cache(max_entries=10), prefix="users"))
        registry.register(PrometheusCollector(Cache(max_entries=20), prefix="pages"))
        assert registry.get_sample_value("pages_max_entries", {"name": "default"}) == 20

    def test_two_collectors_with_one_prefix_are_refused_by_the_registry(
        self, registry: CollectorRegistry
    ) -> None:
        registry.register(PrometheusCollector(Cache(), name="users"))
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(PrometheusCollector(Cache(), name="pages"))

    def test_one_name_for_two(self) -> None:
        cache = Cache()
        collector = PrometheusCollector(cache, name="users")
        collector.add(cache, name="users")
        with pytest.raises(ValueError, match="'users' already"):
            collector.add(Cache(), name="users")

    @pytest.mark.parametrize(("cache", "name"), [({}, "name"), (Cache(), 1)])
    def test_what_is_none(self, cache: Any, name: Any) -> None:
        with pytest.raises(TypeError, match="must be a"):
            PrometheusCollector(cache, name=name)


def test_unregistering_ends_it(registry: CollectorRegistry) -> None:
    collector = PrometheusCollector(Cache())
    registry.register(collector)
    registry.unregister(collector)
    registry.register(PrometheusCollector(Cache()))
    assert value(registry, "entries") == 0


def test_both_formats_are_what_their_parsers_read(registry: CollectorRegistry, cache: Cache) -> None:
    registry.register(PrometheusCollector(cache))
    plain = {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}
    strict = {family.name for family in parse_open_metrics(generate_open_metrics(registry).decode())}
    described = {metric.name for metric in PrometheusCollector(cache).describe()}
    assert plain == strict == described


def test_over_http(registry: CollectorRegistry, cache: Cache) -> None:
    registry.register(PrometheusCollector(cache, name="served"))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as response:
            text = response.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
    assert 'latchstore_cache_hits_total{name="served"} 2.0' in text
    assert 'latchstore_cache_evictions_total{cause="expired",name="served"} 1.0' in text


def test_example() -> None:
    results = doctest.testmod(metrics)
    assert (results.attempted, results.failed) == (6, 0)
