"""What does one operation cost, in one thread, beside a bare dict, a locked dict and encore?

Reads and writes go over 1,000 keys with 64 bytes of data and two metadata items each, in a shuffled
order; so it is the operations that are measured, and not how far away the memory is. Queries and globs
go over 10,000 keys.
"""

from __future__ import annotations

import io
import random
from functools import partial
from typing import Any

from benchmarks.measure import (
    Answer,
    Ratio,
    Subject,
    Timing,
    figure_list,
    figures_of,
    interleaved,
    markdown,
    ratio_of_times,
    ratio_table,
)
from benchmarks.peers import OURS, LockedDict, peers
from latchstore import AbstractStore, DictMemoryStore, EventManager

DATA = 64
FEW = 1_000
PASSES = 5
MANY = 10_000


def key_of(number: int) -> str:
    """Return the key of an entry."""
    return f"key{number}"


def data_of(number: int) -> bytes:
    """Return the data of an entry."""
    return b"%0*d" % (DATA, number)


def fill(store: Any, count: int) -> Any:
    """Set `count` keys with two metadata items each."""
    for number in range(count):
        value = (io.BytesIO(data_of(number)), {"type": number % 7, "number": number})
        store.set(key_of(number), value)
    return store


def encore_store() -> Any:
    """Return an encore DictMemoryStore, to which nobody listens."""
    from encore.storage.dict_memory_store import DictMemoryStore as EncoreStore

    return EncoreStore()


def our_store(**options: Any) -> DictMemoryStore:
    """Return one of ours, to which nobody listens."""
    return DictMemoryStore(EventManager(), **options)


def measure_single_keys(rounds: int) -> dict[str, Timing]:
    """Time the operations on single keys."""
    keys = [key_of(number) for number in range(FEW)]
    random.Random(1).shuffle(keys)
    bare = {key_of(number): data_of(number) for number in range(FEW)}
    locked = LockedDict({key_of(number): data_of(number) for number in range(FEW)})

    def each(code: str, store: Any) -> Subject:
        once = f"for key in keys: {code}"
        names = {"keys": keys, "store": store, "data": data_of(0), "BytesIO": io.BytesIO}
        return Subject(f"for _ in range({PASSES}):\n    {once}", PASSES * FEW, once, **names)

    subjects = {
        "dict.get": each("store.get(key)", bare),
        "dict + Lock": each("store.get(key)", locked),
        "in dict": each("key in store", bare),
    }
    operations = {
        "to_bytes": "store.to_bytes(key)",
        "exists": "store.exists(key)",
        "get": "store.get(key)",
        "get_metadata": "store.get_metadata(key)",
        "from_bytes": "store.from_bytes(key, data)",
        "set": "store.set(key, (BytesIO(data), {'type': 1, 'number': 2}))",
        "delete + from_bytes": "store.delete(key); store.from_bytes(key, data)",
    }
    ours, encore = fill(our_store(), FEW), fill(encore_store(), FEW)
    for name, code in operations.items():
        subjects[name] = each(code, ours)
        subjects[f"encore {name}"] = each(code, encore)
    return interleaved(subjects, rounds)


def measure_many_keys(rounds: int) -> dict[str, Timing]:
    """Time the operations that look at many keys, in nanoseconds a call."""
    ours, encore = fill(our_store(), MANY), fill(encore_store(), MANY)
    indexed: AbstractStore = fill(our_store(indexes=["number"]), MANY)
    query = f"list(store.query(number={MANY // 2}))"
    subjects = {
        "query, indexed": Subject(f"for _ in range(100): {query}", 100, store=indexed),
        "query": Subject(query, 1, store=ours),
        "encore query": Subject(query, 1, store=encore),
    }
    for name in ("query_keys()", "glob('key77*')", "glob('*[37]7?')"):
        subjects[name] = Subject(f"list(store.{name})", 1, store=ours)
        subjects[f"encore {name}"] = Subject(f"list(store.{name})", 1, store=encore)
    return interleaved(subjects, rounds)


def measure_peers(rounds: int) -> dict[str, Timing]:
    """Time get, set, and delete with a set, of all stores that are installed; 64 bytes, no metadata."""
    keys = [key_of(number) for number in range(FEW)]
    random.Random(1).shuffle(keys)
    subjects = {}
    for peer_name, make in peers().items():
        peer = make()
        names: dict[str, Any] = {
            "keys": keys,
            "get": peer.get,
            "put": peer.set,
            "delete": peer.delete,
            "data": data_of(0),
        }
        subjects[f"{peer_name}: set"] = Subject("for key in keys: put(key, data)", FEW, **names)
        subjects[f"{peer_name}: get"] = Subject("for key in keys: get(key)", FEW, **names)
        both = "for key in keys: delete(key); put(key, data)"
        subjects[f"{peer_name}: delete and set"] = Subject(both, FEW, **names)
    return interleaved(subjects, rounds)


def _peer_table(timings: dict[str, Timing]) -> str:
    kinds = ("get", "set", "delete and set")
    rows = []
    for name in peers():
        times = [timings[f"{name}: {kind}"].median for kind in kinds]
        ours = [timings[f"{OURS}: {kind}"].median for kind in kinds]
        ratios = [f"{mine / other:.2f}" for mine, other in zip(ours, times, strict=True)]
        rows.append([name, *(f"{each:,.0f}" for each in times), *ratios])
    return markdown(["nanoseconds", *kinds, *(f"ours / it: {kind}" for kind in kinds)], rows)


def ratios(single: dict[str, Timing], many: dict[str, Timing]) -> list[Ratio]:
    """Compare, where a limit was set."""
    ratio = partial(ratio_of_times, single | many)
    return [
        ratio("to_bytes", "dict.get", 2.3),
        ratio("to_bytes", "dict + Lock", 0.55),
        ratio("get", "encore get", 1.0),
        ratio("exists", "in dict", 2.5),
        ratio("from_bytes", "encore from_bytes", 0.08),
        ratio("query", "encore query", 0.5),
        ratio("query, indexed", "encore query", 1 / 500),
        ratio("glob('key77*')", "encore glob('key77*')", 0.25),
        ratio("glob('*[37]7?')", "encore glob('*[37]7?')", 0.25),
    ]


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    single = measure_single_keys(2 if quick else 40)
    many = measure_many_keys(2 if quick else 30)
    others = measure_peers(2 if quick else 20)
    compared = ratios(single, many)
    timings = single | many | others
    report = "\n\n".join([ratio_table(compared), _peer_table(others), figure_list(single | many)])
    return Answer(report, compared, figures_of(timings))
