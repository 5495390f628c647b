"""What do ordered indexes save queries, and what do they cost writes?

Queries in order with a limit of 10, by the number of keys; through the logarithms of the times goes a
straight line, as for `growth`. A commit notes what has changed, and the next query that uses the index moves
the changed keys to their places: so the table of writes has the write alone, and the write with its part of a
query that comes after every 100 writes. Random keys of 100,000 are written; their item changes each time, or
never.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from typing import Any

from benchmarks.measure import (
    Answer,
    Chart,
    Figure,
    Ratio,
    Subject,
    Timing,
    exponent,
    figure_list,
    figures_of,
    interleaved,
    lines_by_size,
    markdown,
    ratio_of_times,
    ratio_table,
    size_table,
)
from benchmarks.operations import key_of, our_store
from latchstore import Between, DictMemoryStore, Ordered

SIZES = (1_000, 10_000, 100_000, 1_000_000)
KEYS, QUICK_KEYS = 100_000, 10_000
_LIMIT = 10

#: What is timed on an indexed store of each size: the code, and how many operations it is.
_IN_ORDER = "order_by='due', limit=10"
_EACH = {
    "query(order_by=, limit=10)": (f"for _ in each: list(store.query({_IN_ORDER}))", 200),
    "query_keys(order_by=, limit=10)": (
        "for _ in each: list(store.query_keys(order_by='due', limit=10))",
        200,
    ),
    "query_keys of a range of 10": ("for _ in each: list(store.query_keys(due=some))", 200),
    "glob('key0*', limit=10)": ("for _ in each: list(store.glob('key0*', limit=10))", 200),
    "set of a new due, and query_keys(order_by=, limit=1)": (
        "for key, value in writes: store.set(key, value); next(store.query_keys(order_by='due', limit=1))",
        200,
    ),
}
_WITHOUT = "no index: query_keys(order_by=, limit=10)"
#: Up to how many keys.
WITHOUT_INDEX = 100_000
LIMITED = next(iter(_EACH))

_WRITE = "for key, value in writes: store.set(key, value)"
_MOVE = f"{_WRITE}\nlist(store.query_keys(order_by='due', limit=1))"
PLAIN, HASHED, ORDERED = "set, no index", "set, hashed index", "set, ordered index"
MOVED, SAME = f"{ORDERED}, moved by a query after 100", "the item stays"


def _value(due: float) -> tuple[bytes, dict[str, Any]]:
    return b"x" * 64, {"due": due, "kind": "a"}


def filled(size: int, indexes: list[Any]) -> DictMemoryStore:
    """Return a store whose indexes are built."""
    store = our_store(indexes=indexes)
    dues = random.Random(size).sample(range(size), size)
    for begin in range(0, size, 10_000):
        some = range(begin, min(size, begin + 10_000))
        store.multiset([key_of(number) for number in some], [_value(float(dues[number])) for number in some])
    list(store.query_keys(order_by="due", limit=1))
    list(store.glob("key0*", limit=1))
    return store


def writes(size: int, count: int, seed: int, changing: bool) -> list[Any]:
    """Return keys and values to set; the items are new ones, or those that `filled` has set."""
    draw = random.Random(seed)
    numbers = [draw.randrange(size) for _ in range(count)]
    if changing:
        return [(key_of(number), _value(draw.random() * size)) for number in numbers]
    dues = random.Random(size).sample(range(size), size)
    return [(key_of(number), _value(float(dues[number]))) for number in numbers]


def measure_queries(sizes: tuple[int, ...], rounds: int) -> dict[tuple[str, int], Timing]:
    """Time everything at every size."""
    subjects: dict[tuple[str, int], Subject] = {}
    for size in sizes:
        names: dict[str, Any] = {
            "store": filled(size, [Ordered("due"), Ordered("key")]),
            "each": range(200),
            "some": Between(size / 2, size / 2 + _LIMIT),
            "writes": writes(size, 200, 0, changing=True),
        }
        for name, (code, operations) in _EACH.items():
            subjects[name, size] = Subject(code, operations, **names)
        if size <= WITHOUT_INDEX:
            subjects[_WITHOUT, size] = Subject(
                f"list(store.query_keys({_IN_ORDER}))", 1, store=filled(size, [])
            )
    return interleaved(subjects, rounds)


def measure_writes(size: int, rounds: int) -> dict[str, Timing]:
    """Time writes of stores with and without indexes."""
    indexes: dict[str, list[Any]] = {
        PLAIN: [],
        HASHED: ["due"],
        ORDERED: [Ordered("due")],
        MOVED: [Ordered("due")],
    }
    subjects: dict[str, Subject] = {}
    for name, those in indexes.items():
        store = filled(size, those)
        changing = [writes(size, 100, seed, changing=True) for seed in range(rounds + 1)]
        # Each round has values of its own; what a round has noted is moved before the next one.
        subjects[name] = Subject(
            _MOVE if name == MOVED else _WRITE,
            100,
            "list(store.query_keys(order_by='due', due=0.5, limit=1)); writes = changing.pop()",
            store=store,
            changing=changing,
        )
        if name in (PLAIN, ORDERED):
            same = writes(size, 100, 0, changing=False)
            subjects[f"{name}, {SAME}"] = Subject(_WRITE, 100, store=filled(size, those), writes=same)
    return interleaved(subjects, rounds)


def bytes_per_key(size: int, index: str | Ordered) -> float:
    """Return what an index takes, in bytes."""
    store = filled(size, [])
    gc.collect()
    tracemalloc.start()
    store.add_index(index)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / size


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    sizes = SIZES[:2] if quick else SIZES
    keys = QUICK_KEYS if quick else KEYS
    timings = measure_queries(sizes, 2 if quick else 9)
    of_writes = measure_writes(keys, 10 if quick else 100)
    lines = lines_by_size(timings)
    least, most = timings[LIMITED, sizes[0]], timings[LIMITED, sizes[-1]]
    ratios = [
        Ratio.of(f"{LIMITED}, {sizes[-1]:,} keys / {sizes[0]:,}", most.rounds, least.rounds, "ns", 3.0),
        ratio_of_times(of_writes, ORDERED, PLAIN, 1.6),
        ratio_of_times(of_writes, f"{ORDERED}, {SAME}", f"{PLAIN}, {SAME}", 1.6),
        ratio_of_times(of_writes, MOVED, PLAIN, 1.6),
    ]
    shown = {name: f"{exponent(points):.2f}" for name, points in lines.items()}
    table = size_table("microseconds, by number of keys", lines, {"exponent": shown})
    memory = {str(index): bytes_per_key(keys, index) for index in ("due", Ordered("due"), Ordered("key"))}
    rows = [[name, f"{taken:,.0f}"] for name, taken in memory.items()]
    chart = Chart("ordered", "Queries in order, by the number of keys", "keys", "microseconds", lines)
    figures = figures_of({f"{name}, {size:,} keys": timing for (name, size), timing in timings.items()})
    figures += figures_of(of_writes)
    figures += [Figure(f"index {name}, bytes a key", taken, 0.0, "bytes") for name, taken in memory.items()]
    text = "\n\n".join(
        (
            ratio_table(ratios),
            table,
            figure_list(of_writes),
            markdown([f"index of {keys:,} keys", "bytes a key"], rows),
        )
    )
    return Answer(text, ratios, figures, [chart])
