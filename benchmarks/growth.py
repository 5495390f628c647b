"""How does each cost grow with the number of keys in the store?

The same operation on stores of 1,000 to 1,000,000 keys; through the logarithms of the times goes a straight
line, and its slope is the exponent: 0 for a cost that does not depend on the size, 1 for one that grows with
it. Keys are drawn at random, so larger stores also pay for what the processor's caches no longer hold: the
exponent of a bare dict's get, in the same run, says how much that is. Encore is measured up to 100,000 keys,
as it takes long to fill.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.measure import (
    Answer,
    Chart,
    Ratio,
    Subject,
    Timing,
    exponent,
    figures_of,
    interleaved,
    lines_by_size,
    ratio_table,
    size_table,
)
from benchmarks.operations import data_of, encore_store, fill, key_of, our_store

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ENCORE_SIZES = SIZES[:3]
_DRAWN = 500

#: What is timed: the code, and how many operations it is.
_EACH = {
    "bare dict.get": ("for key in keys: bare.get(key)", _DRAWN),
    "to_bytes": ("for key in keys: store.to_bytes(key)", _DRAWN),
    "get": ("for key in keys: store.get(key)", _DRAWN),
    "from_bytes": ("for key in keys: store.from_bytes(key, data)", _DRAWN),
    "query, indexed, one hit": ("for number in numbers: list(store.query(number=number))", _DRAWN),
    "snapshot, opened and closed": ("for _ in range(100): store.snapshot().close()", 100),
    "query, not indexed": ("list(store.query(other=7))", 1),
    "glob('key77*')": ("list(store.glob('key77*'))", 1),
}
_ENCORE = {
    "encore query": ("list(store.query(other=7))", 1),
    "encore glob('key77*')": ("list(store.glob('key77*'))", 1),
}
LIMITED = ("query, indexed, one hit", "snapshot, opened and closed")


def _our_store(size: int) -> Any:
    store = our_store(indexes=["number"])
    keys = [key_of(number) for number in range(size)]
    store.multiset(
        keys, [(data_of(number), {"other": number % 7 + 10, "number": number}) for number in range(size)]
    )
    return store


def measure(sizes: tuple[int, ...], rounds: int) -> dict[tuple[str, int], Timing]:
    """Time everything at every size."""
    subjects: dict[tuple[str, int], Subject] = {}

    def add(codes: dict[str, tuple[str, int]], size: int, **names: Any) -> None:
        for name, (code, operations) in codes.items():
            subjects[name, size] = Subject(code, operations, **names)

    for size in sizes:
        numbers = random.Random(size).sample(range(size), _DRAWN)
        names = {"keys": [key_of(number) for number in numbers], "numbers": numbers, "data": data_of(0)}
        bare = {key_of(number): data_of(number) for number in range(size)}
        add(_EACH, size, store=_our_store(size), bare=bare, **names)
        if size in ENCORE_SIZES:
            add(_ENCORE, size, store=fill(encore_store(), size))
    return interleaved(subjects, rounds)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    sizes = SIZES[:2] if quick else SIZES
    timings = measure(sizes, 2 if quick else 15)
    lines = lines_by_size(timings)
    exponents = {name: exponent(points) for name, points in lines.items()}
    ratios = [Ratio(f"{name}: exponent of growth", exponents[name], 1.0, "", 0.1) for name in LIMITED]
    shown = {name: f"{exponents[name]:.2f}" for name in lines}
    table = size_table("microseconds, by number of keys", lines, {"exponent": shown})
    chart = Chart(
        "growth", "Cost of an operation by the number of keys in the store", "keys", "microseconds", lines
    )
    figures = figures_of({f"{name}, {size:,} keys": timing for (name, size), timing in timings.items()})
    return Answer(f"{ratio_table(ratios)}\n\n{table}", ratios, figures, [chart])
