"""Statistics of caches for Prometheus; needs prometheus-client: ``latchstore[prometheus]``.

Thread safety: a scrape reads the counts as ``Cache.stats`` does, and acquires no lock that a hit acquires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from latchstore.cache.shared import Cache
from latchstore.contract.arguments import describe
from latchstore.contract.extras import missing_extra

try:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise missing_extra("latchstore.metrics", "prometheus-client", "prometheus", error) from error

#: The counters of a cache: the end of the metric's name, its help text, and its key in ``stats()``.
_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("hits", "Reads that found a value.", "hits"),
    ("misses", "Reads that found no value.", "misses"),
    ("loads", "Loads that returned a value.", "loads"),
    ("load_failures", "Loads that raised an exception.", "load_failures"),
    ("load_seconds", "Duration of all loads in seconds, failed ones included.", "load_seconds"),
)
_GAUGES: tuple[tuple[str, str, Callable[[Cache, dict[str, Any]], int | None]], ...] = (
    ("entries", "Number of entries.", lambda cache, stats: stats["entries"]),
    ("size_bytes", "Total weight of the entries in bytes.", lambda cache, stats: stats["bytes"]),
    ("max_entries", "Maximum number of entries.", lambda cache, stats: cache.max_entries),
    ("max_size_bytes", "Maximum total weight of the entries in bytes.", lambda cache, stats: cache.max_bytes),
)


class PrometheusCollector(Collector):
    """Exports the statistics of one cache, or of several, to a registry of prometheus_client.

    The metrics are counters (``latchstore_cache_hits_total``, ``_misses_total``, ``_loads_total``,
    ``_load_failures_total``, ``_load_seconds_total``, and ``_evictions_total`` by ``cause``) and gauges
    (``latchstore_cache_entries``, ``_size_bytes``, and for bounds that are set ``_max_entries`` and
    ``_max_size_bytes``). All have a label ``name``; no label has a key of the cache. The collector keeps its
    caches alive until it is unregistered.

    Parameters
    ----------
    cache : Cache
    name : str
        Value of the label ``name``.
    prefix : str
        Prefix of the names of the metrics. A registry accepts two collectors only if their prefixes differ.
        To export several caches with different labels, `add` them to one collector.

    Thread safety
    -------------
    Any thread may scrape and add. A scrape takes no lock that a hit of the cache takes.

    Examples
    --------
    >>> from latchstore import Cache
    >>> from latchstore.metrics import PrometheusCollector
    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()
    >>> registry.register(PrometheusCollector(Cache(max_entries=1_000), name="users"))
    >>> registry.get_sample_value("latchstore_cache_max_entries", {"name": "users"})
    1000
    """

    def __init__(self, cache: Cache, *, name: str = "default", prefix: str = "latchstore_cache") -> None:
        self._prefix = prefix
        self._caches: dict[str, Cache] = {}
        self.add(cache, name=name)

    def add(self, cache: Cache, *, name: str) -> None:
        """Export another cache as well.

        Raises
        ------
        ValueError
            If the collector has a cache with that name already.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache must be a Cache, got {describe(cache)}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {describe(name)}")
        if self._caches.setdefault(name, cache) is not cache:
            raise ValueError(f"name must be unique, but there is a cache named {name!r} already")

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, which a registry compares with those of other collectors."""
        return [*self._counters(), self._evictions(), *self._gauges()]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with their present values."""
        counters, evictions, gauges = self._counters(), self._evictions(), self._gauges()
        for name, cache in list(self._caches.items()):
            stats = cache.stats()
            for counter, (_, _, item) in zip(counters, _COUNTERS, strict=True):
                counter.add_metric([name], stats[item])
            for cause, count in stats["evictions"].items():
                evictions.add_metric([name, cause], count)
            for gauge, (_, _, value_of) in zip(gauges, _GAUGES, strict=True):
                value = value_of(cache, stats)
                if value is not None:
                    gauge.add_metric([name], value)
        return [*counters, evictions, *gauges]

    def _counters(self) -> list[CounterMetricFamily]:
        return [
            CounterMetricFamily(f"{self._prefix}_{end}", text, labels=["name"]) for end, text, _ in _COUNTERS
        ]

    def _evictions(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            f"{self._prefix}_evictions", "Evicted entries, by cause.", labels=["name", "cause"]
        )

    def _gauges(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(f"{self._prefix}_{end}", text, labels=["name"]) for end, text, _ in _GAUGES]
