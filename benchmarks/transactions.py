"""What do transactions and snapshots cost, beside encore and SQLite in memory?

A set has 64 bytes of data and two metadata items. SQLite is given the same facts as our store keeps, in one
transaction of upserts: key, data, metadata as JSON, created, modified and revision; and, in a line of its own
without a limit, key, data and metadata alone. Each begins with a stream and a dictionary. Encore has no
transactions; it is given the 100 sets.
"""

from __future__ import annotations

import io
import json
import sqlite3
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.measure import (
    Answer,
    Chart,
    Subject,
    Timing,
    figure_list,
    figures_of,
    interleaved,
    lines_by_size,
    ratio_of_times,
    ratio_table,
    size_table,
)
from benchmarks.operations import data_of, encore_store, fill, key_of, our_store
from latchstore import DictMemoryStore

SETS = 100
SIZES = (1, 10, 100, 1_000)
PASSES = 5
READS = 1_000
MANY = 1_000_000
QUICK_MANY = 100_000
FEW = 1_000

_SETS = "for key in keys: store.set(key, (BytesIO(data), {'type': 1, 'number': 2}))"
_TRANSACTION = f"with store.transaction('benchmark'):\n    {_SETS}"
_TRANSACTION_ITSELF = _TRANSACTION.replace("'):", "') as tx:").replace("store.set", "tx.set")
_MULTISET = "store.multiset(keys, [(BytesIO(data), {'type': 1, 'number': 2}) for key in keys])"
_UPSERT = (
    "insert into entries values (?, ?, ?, ?, ?, ?) on conflict (key) do update set data = excluded.data, "
    "metadata = excluded.metadata, modified = excluded.modified, revision = excluded.revision"
)
_SQLITE = """
with database:
    for key in keys:
        now = time()
        metadata = dumps({'type': 1, 'number': 2})
        database.execute(upsert, (key, BytesIO(data).read(), metadata, now, now, 1))
"""
_SQLITE_LESS = """
with database:
    for key in keys:
        database.execute(replace, (key, BytesIO(data).read(), dumps({'type': 1, 'number': 2})))
"""
_ATTEMPT = """
for attempt in store.attempts('benchmark'):
    with attempt as transaction:
        for key in keys[:10]: transaction.to_bytes(key)
        transaction.from_bytes(keys[0], data)
"""
_EXCLUSIVE = """
with store.transaction('benchmark') as transaction:
    for key in keys[:10]: transaction.to_bytes(key)
    transaction.from_bytes(keys[0], data)
"""
_SAVEPOINT = """
with store.transaction('benchmark') as transaction:
    for _ in range(100):
        with store.transaction('inner'): pass
"""


def _database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute(
        "create table entries (key text primary key, data blob, metadata text, created real, modified real, "
        "revision integer)"
    )
    database.execute("create table less (key text primary key, data blob, metadata text)")
    return database


def measure_transactions(rounds: int) -> dict[str, Timing]:
    """Time transactions, in nanoseconds each."""
    names: dict[str, Any] = {
        "keys": [key_of(number) for number in range(SETS)],
        "data": data_of(0),
        "BytesIO": io.BytesIO,
        "dumps": json.dumps,
        "time": time.time,
        "upsert": _UPSERT,
        "replace": "insert or replace into less values (?, ?, ?)",
    }
    ours = fill(our_store(), SETS)

    def each(code: str, operations: int = 1, **subject: Any) -> Subject:
        # Once before it is timed: see `Subject`.
        passes = f"for _ in range({PASSES}):\n{textwrap.indent(code, '    ')}"
        return Subject(passes, PASSES * operations, code, **subject, **names)

    return interleaved(
        {
            "transaction of 100 sets": each(_TRANSACTION, store=ours),
            "transaction of 100 sets, by its own methods": each(_TRANSACTION_ITSELF, store=ours),
            "multiset of 100": each(_MULTISET, store=ours),
            "encore, 100 sets": each(_SETS, store=fill(encore_store(), SETS)),
            "sqlite, 100 upserts": each(_SQLITE, database=_database()),
            "sqlite, 100 replaces of less": each(_SQLITE_LESS, database=_database()),
            "optimistic, 10 reads and a write": each(_ATTEMPT, store=ours),
            "exclusive, 10 reads and a write": each(_EXCLUSIVE, store=ours),
            "savepoint": each(_SAVEPOINT, 100, store=ours),
        },
        rounds,
    )


def measure_sizes(rounds: int) -> dict[tuple[str, int], Timing]:
    """Time transactions of 1 to 1,000 sets, in nanoseconds a set."""
    subjects = {}
    for size in SIZES:
        names: dict[str, Any] = {
            "keys": [key_of(number) for number in range(size)],
            "data": data_of(0),
            "BytesIO": io.BytesIO,
            "dumps": json.dumps,
            "time": time.time,
            "upsert": _UPSERT,
        }
        cases: dict[str, tuple[str, dict[str, Any]]] = {
            "latchstore": (_TRANSACTION, {"store": fill(our_store(), size)}),
            "latchstore, optimistic": (
                _TRANSACTION.replace("'benchmark'", "'benchmark', optimistic=True"),
                {"store": fill(our_store(), size)},
            ),
            "encore, not isolated": (_SETS, {"store": fill(encore_store(), size)}),
            "sqlite": (_SQLITE, {"database": _database()}),
        }
        passes = max(1, 500 // size)
        for name, (code, subject) in cases.items():
            repeated = f"for _ in range({passes}):\n{textwrap.indent(code, '    ')}"
            subjects[name, size] = Subject(repeated, passes * size, code, **subject, **names)
    return interleaved(subjects, rounds)


def measure_snapshots(many: int, rounds: int) -> dict[str, Timing]:
    """Time the opening and closing of a snapshot, in nanoseconds."""
    code = "for _ in range(100):\n    with store.snapshot(): pass"
    large, small = (_filled(count) for count in (many, FEW))
    subjects = {
        f"snapshot of {many:,}": Subject(code, 100, store=large),
        f"snapshot of {FEW:,}": Subject(code, 100, store=small),
    }
    return interleaved(subjects, rounds)


def _filled(count: int) -> DictMemoryStore:
    store = our_store()
    store.multiset_data([key_of(number) for number in range(count)], [b"x"] * count)
    return store


@contextmanager
def writer_inside_transaction(store: DictMemoryStore) -> Iterator[None]:
    """Have another thread stay inside a transaction that has written, for a ``with`` block."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with store.transaction("stays inside"):
            store.from_bytes("other", b"")
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def measure_reads(rounds: int) -> dict[str, Timing]:
    """Time reads beside an open transaction of another thread, and without one."""
    keys = [key_of(number) for number in range(READS)]
    free, busy = fill(our_store(), READS), fill(our_store(), READS)

    def reads(operation: str, store: DictMemoryStore) -> Subject:
        return Subject(f"for key in keys: store.{operation}(key)", READS, keys=keys, store=store)

    subjects = {}
    for operation in ("get", "to_bytes", "get_metadata"):
        subjects[operation] = reads(operation, free)
        subjects[f"{operation} beside a transaction"] = reads(operation, busy)
    with writer_inside_transaction(busy):
        return interleaved(subjects, rounds)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    many = QUICK_MANY if quick else MANY
    timings = measure_transactions(5 if quick else 60) | measure_reads(5 if quick else 60)
    timings |= measure_snapshots(many, 3 if quick else 30)
    ratio = partial(ratio_of_times, timings)
    compared = [
        ratio("transaction of 100 sets", "encore, 100 sets", 0.1),
        ratio("transaction of 100 sets", "sqlite, 100 upserts", 1 / 3),
        ratio("transaction of 100 sets, by its own methods", "sqlite, 100 upserts", 1 / 3),
        ratio(f"snapshot of {many:,}", f"snapshot of {FEW:,}", 20),
        ratio("get beside a transaction", "get", 1.5),
        ratio("to_bytes beside a transaction", "to_bytes", 1.5),
        ratio("get_metadata beside a transaction", "get_metadata", 1.5),
    ]
    sizes = measure_sizes(2 if quick else 30)
    lines = lines_by_size(sizes)
    table = size_table("microseconds a set, in transactions of", lines)
    report = f"{ratio_table(compared)}\n\n{table}\n\n{figure_list(timings)}"
    chart = Chart(
        "transactions",
        "Cost of a set by the size of its transaction",
        "sets a transaction",
        "microseconds a set",
        lines,
    )
    timings |= {f"a set of {size:,}, {name}": timing for (name, size), timing in sizes.items()}
    return Answer(report, compared, figures_of(timings), [chart])
