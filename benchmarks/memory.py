"""How much memory does a key take, beside encore?

100,000 keys with 64 bytes of data and two metadata items each. Each store is filled in a process of its
own, and counted by tracemalloc: what it has allocated, without keys, which are made before.
"""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import tracemalloc
from typing import Any

from benchmarks.measure import Ratio, markdown, ratio_table
from benchmarks.operations import data_of, encore_store, key_of, our_store

KEYS = 100_000
QUICK_KEYS = 10_000

STORES = ("latchstore", "latchstore, one index", "encore")


def make_store(name: str) -> Any:
    """Return an empty store by its name in `STORES`."""
    if name == "encore":
        return encore_store()
    return our_store(indexes=["number"] if "index" in name else [])


def bytes_per_key(name: str, count: int) -> float:
    """Fill a store and return what it has allocated per key, in bytes."""
    keys = [key_of(number) for number in range(count)]
    store = make_store(name)
    gc.collect()
    tracemalloc.start()
    for number, key in enumerate(keys):
        store.set(key, (io.BytesIO(data_of(number)), {"type": number % 7, "number": number}))
    gc.collect()
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return allocated / count


def in_process(name: str, count: int) -> float:
    """Measure in a fresh process, so that nobody's leavings are counted."""
    command = [sys.executable, "-m", "benchmarks.memory", name, str(count)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(finished.stdout)


def run(quick: bool = False) -> tuple[str, list[Ratio]]:
    """Measure; return a report in Markdown and the ratios."""
    count = QUICK_KEYS if quick else KEYS
    sizes = {name: in_process(name, count) for name in STORES}
    compared = [
        Ratio("memory / encore", sizes["latchstore"], sizes["encore"], "bytes", 1.0),
        Ratio("memory, one index / encore", sizes[STORES[1]], sizes["encore"], "bytes", 1.6),
    ]
    rows = [[name, f"{size:,.0f}"] for name, size in sizes.items()]
    report = [ratio_table(compared), "", markdown(["store", f"bytes a key of {count:,}"], rows)]
    return "\n".join(report), compared


if __name__ == "__main__":
    print(bytes_per_key(sys.argv[1], int(sys.argv[2])))
