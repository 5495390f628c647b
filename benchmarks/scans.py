"""What do queries and globs cost, by the number of keys, beside encore?

Each key has two metadata items. The query finds one key in a hundred, or one at all; globs find what begins
with some letters, and what only the compiled pattern tells. Encore is measured up to 100,000 keys, as it
takes long to fill.
"""

from __future__ import annotations

from benchmarks.measure import (
    Answer,
    Chart,
    Subject,
    Timing,
    figures_of,
    interleaved,
    lines_by_size,
    size_table,
)
from benchmarks.operations import data_of, encore_store, key_of, our_store

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ENCORE_SIZES = SIZES[:3]

_SCANS = {
    "query, one in 100": "list(store.query(place=7))",
    "query_keys, one in 100": "list(store.query_keys(place=7))",
    "query, one": "list(store.query(number=7))",
    "glob('key77*')": "list(store.glob('key77*'))",
    "glob('*[37]7?')": "list(store.glob('*[37]7?'))",
}


def measure(sizes: tuple[int, ...], rounds: int) -> dict[tuple[str, int], Timing]:
    """Time each scan in each store, at every size."""
    found: dict[tuple[str, int], Timing] = {}
    for size in sizes:
        keys = [key_of(number) for number in range(size)]
        values = [(data_of(number), {"place": number % 100, "number": number}) for number in range(size)]
        stores = {"latchstore": our_store(), "latchstore, indexed": our_store(indexes=["place", "number"])}
        for store in stores.values():
            store.multiset(keys, values)
        if size in ENCORE_SIZES:
            stores["encore"] = encore_store()
            for key, (_, metadata) in zip(keys, values, strict=True):
                stores["encore"].set_metadata(key, metadata)
        subjects = {
            (f"{scan}, {name}", size): Subject(code, 1, store=store)
            for scan, code in _SCANS.items()
            for name, store in stores.items()
        }
        found |= interleaved(subjects, rounds if size < 1_000_000 else max(1, rounds // 4))
    return found


def run(quick: bool = False) -> Answer:
    """Measure; return the answer; the limits are in the question ``operations``."""
    sizes = SIZES[:2] if quick else SIZES
    found = measure(sizes, 2 if quick else 12)
    lines = lines_by_size(found)
    table = size_table("microseconds, by number of keys", lines)
    charts = [
        Chart(
            f"scans-{number}",
            f"{scan}, by number of keys",
            "keys",
            "microseconds",
            {
                name.removeprefix(f"{scan}, "): points
                for name, points in lines.items()
                if name.startswith(f"{scan}, ")
            },
        )
        for number, scan in enumerate(("query, one in 100", "query, one", "glob('key77*')"), 1)
    ]
    figures = figures_of({f"{name}, {size:,} keys": timing for (name, size), timing in found.items()})
    return Answer(table, (), figures, charts)
