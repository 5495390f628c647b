"""`max_bytes` bounds the memory that a cache takes, also with small entries."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from latchstore import Cache

MAX_BYTES = 1_000_000

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ttl": {"ttl": 60.0},
    "tags": {"tags": ["a", "b"]},
    "metadata": {"ttl": 60.0, "metadata": {"first": 1.0, "second": "two"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_small_entries(kind: str) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        with Cache(max_bytes=MAX_BYTES, codec="raw") as cache:
            for number in range(3_500):
                cache.set(f"key{number}", b"%010d" % number, **KINDS[kind])
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            stats = cache.stats()
    finally:
        tracemalloc.stop()
    assert stats["evictions"]["size"] > 1_000
    assert 0.95 * MAX_BYTES < stats["bytes"] <= MAX_BYTES
    assert MAX_BYTES / 2 < taken < MAX_BYTES * 2


def test_a_weight_is_taken_as_it_is() -> None:
    with Cache(max_bytes=100, codec="raw") as cache:
        for number in range(200):
            cache.set(f"key{number}", b"data", weight=1)
        assert (len(cache), cache.stats()["bytes"]) == (100, 100)
