"""How much memory does a key take, beside encore and others?

100,000 keys with 0 to 4,096 bytes of data; two metadata items each in the stores that have such. Each store
is filled in a process of its own, and counted by tracemalloc: what Python has allocated, without keys, which
are made before. What libraries written in C and Rust allocate for themselves is not seen by it, so those are
left out.

And how much a `Cache` counts for an entry, beside what that takes: ``OVERHEAD`` and ``METADATA_OVERHEAD`` of
``engine/entry_facts.py`` are chosen so that both are about the same.
"""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import tracemalloc
from typing import Any

from benchmarks.measure import Answer, Chart, Figure, Ratio, markdown, ratio_table
from benchmarks.operations import encore_store, key_of, our_store
from benchmarks.peers import peers
from latchstore import Cache

KEYS = 100_000
QUICK_KEYS = 10_000
#: Bytes of data.
SIZES = (0, 64, 512, 4_096)
LIMITED = 64

OURS, INDEXED, ENCORE = "latchstore", "latchstore, one index", "encore"
#: Options of the entries of a cache.
ENTRIES: dict[str, Any] = {
    "plain": {},
    "with a ttl": {"ttl": 60.0},
    "with two tags": {"tags": ("first", "second")},
    "with a ttl, two items": {"ttl": 60.0, "metadata": {"type": 1, "number": 2}},
}
STORES = (OURS, INDEXED, ENCORE, "dict, unguarded", "cachetools LRU + Lock", "dogpile memory", "zict LRU")


def make_setter(name: str) -> Any:
    """Return what sets a key, by its number and data, in an empty store by its name in `STORES`."""
    if name not in (OURS, INDEXED, ENCORE):
        return peers()[name]().set
    store = encore_store() if name == ENCORE else our_store(indexes=["number"] if name == INDEXED else [])

    def set_with_metadata(key: str, data: bytes) -> None:
        # Numbers of the key, as an application's would be.
        number = int(key[3:])
        store.set(key, (io.BytesIO(data), {"type": number % 7, "number": number}))

    return set_with_metadata


def bytes_per_key(name: str, count: int, size: int) -> float:
    """Fill a store and return what it has allocated per key, in bytes."""
    keys = [key_of(number) for number in range(count)]
    put = make_setter(name)
    gc.collect()
    tracemalloc.start()
    for number, key in enumerate(keys):
        put(key, b"%0*d" % (size, number) if size else b"")
    gc.collect()
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return allocated / count


def bytes_of_an_entry(kind: str, count: int) -> tuple[float, float]:
    """Fill a cache without a bound; return what an entry takes and what it counts, key and data included."""
    options = ENTRIES[kind]
    with Cache(codec="raw") as cache:
        gc.collect()
        tracemalloc.start()
        for number in range(count):
            cache.set(key_of(number), b"%010d" % number, **options)
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return allocated / count, cache.stats()["bytes"] / count


def in_process(*arguments: object) -> list[float]:
    """Measure in a fresh process, so that nobody's leavings are counted."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(each) for each in finished.stdout.split()]


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    count = QUICK_KEYS if quick else KEYS
    sizes = (LIMITED,) if quick else SIZES
    installed = peers()
    names = [name for name in STORES if name in (OURS, INDEXED, ENCORE) or name in installed]
    found = {(name, size): in_process(name, count, size)[0] for name in names for size in sizes}
    of_entries = {kind: in_process(kind, count) for kind in ENTRIES}
    ratios = [
        Ratio("memory / encore", found[OURS, LIMITED], found[ENCORE, LIMITED], "bytes", 1.0),
        Ratio("memory, one index / encore", found[INDEXED, LIMITED], found[ENCORE, LIMITED], "bytes", 1.6),
    ]
    rows = [[name, *(f"{found[name, size]:,.0f}" for size in sizes)] for name in names]
    headings = [f"bytes a key of {count:,}", *(f"{size:,} bytes of data" for size in sizes)]
    figures = [Figure(f"{name}, {size:,} bytes", each, 0.0, "bytes") for (name, size), each in found.items()]
    lines = {name: [(max(size, 1), found[name, size]) for size in sizes] for name in names}
    chart = Chart("memory", "Memory of a key (0 is drawn at 1)", "bytes of data", "bytes a key", lines)
    entries = [[kind, f"{taken:,.0f}", f"{counted:,.0f}"] for kind, (taken, counted) in of_entries.items()]
    of_cache = markdown(["entry of a cache, 10 bytes of data", "bytes it takes", "bytes it counts"], entries)
    figures += [Figure(f"entry, {kind}", taken, 0.0, "bytes") for kind, (taken, _) in of_entries.items()]
    text = f"{ratio_table(ratios)}\n\n{markdown(headings, rows)}\n\n{of_cache}"
    return Answer(text, ratios, figures, [chart])


if __name__ == "__main__":
    subject, *numbers = sys.argv[1:]
    if subject in ENTRIES:
        print(*bytes_of_an_entry(subject, int(numbers[0])))
    else:
        print(bytes_per_key(subject, int(numbers[0]), int(numbers[1])))
