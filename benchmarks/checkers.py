"""How fast are the checkers of the stress harness?

Right histories of operations that overlap a little, as a run gives them. Asked for: 300,000 operations a
second for a check of one key, 40,000 transactions a second for the search for cycles, and one key with
1,000,000 operations in under 5 s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from benchmarks.measure import Answer, Figure, Ratio, markdown, ratio_table
from latchstore.stress.history import Operation
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.models import KeyModel, StoreModel
from latchstore.stress.registers import check_register
from latchstore.stress.revision_order import check_revision_order
from latchstore.stress.verdict import Verdict


def register(count: int) -> list[Operation]:
    """Return reads and writes of one key, each beside its neighbours."""
    chance = random.Random(1)
    operations, value = [], None
    for number in range(count):
        begin, end = 10 * number - chance.randrange(15), 10 * number + chance.randrange(15)
        if chance.random() < 0.5:
            value = number
            operations.append(Operation(number % 8, "set", "k", value, None, begin, end))
        else:
            operations.append(Operation(number % 8, "get", "k", None, value, begin, end))
    return operations


def lists(count: int) -> list[ListTransaction]:
    """Return transactions of three steps on ten lists, which change every hundred transactions."""
    chance = random.Random(1)
    values: dict[str, tuple[int, ...]] = {}
    transactions, value = [], 0
    for number in range(count):
        actions: list[Append | Read] = []
        for _ in range(3):
            key = f"{number // 100 * 10 + chance.randrange(10)}"
            if chance.random() < 0.5:
                value += 1
                actions.append(Append(key, value))
                values[key] = (*values.get(key, ()), value)
            else:
                actions.append(Read(key, values.get(key, ())))
        begin, end = 10 * number - chance.randrange(25), 10 * number + chance.randrange(25)
        transactions.append(ListTransaction(number, tuple(actions), begin, end))
    return transactions


def steps(count: int) -> list[Operation]:
    """Return commits of two keys, and reads of one of them, with revisions."""
    chance = random.Random(1)
    values: dict[str, int | None] = {"a": None, "b": None}
    operations, revision = [], 0
    for number in range(count):
        begin, end = 10 * number - chance.randrange(15), 10 * number + chance.randrange(15)
        if chance.random() < 0.5:
            revision += 1
            values = dict.fromkeys(values, number)
            argument = [["set", key, number] for key in values]
            operations.append(
                Operation(0, "write", "k", argument, [None, None], begin, end, revision=revision)
            )
        else:
            operations.append(Operation(0, "read", "k", [["get", "a", None]], [values["a"]], begin, end))
    return operations


def _seconds(check: Callable[[], Verdict], rounds: int) -> float:
    """Return the shortest time that a check took; its answer must be right."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        verdict = check()
        times.append(time.perf_counter() - start)
        if verdict.answer != "valid":
            raise AssertionError(f"the history is right, but: {verdict}")
    return min(times)


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    rounds = 1 if quick else 5
    count = 10_000 if quick else 200_000
    hot = 20_000 if quick else 1_000_000
    history, transactions, several = register(count), lists(count // 5), steps(count)
    checks: dict[str, tuple[int, Callable[[], Verdict], int | None]] = {
        "zones of one key": (count, partial(check_register, history), 300_000),
        "search, one key": (count, partial(check_linearizable, history, KeyModel()), None),
        "search, several keys": (count, partial(check_linearizable, several, StoreModel()), None),
        "order of revisions": (count, partial(check_revision_order, several), None),
        "lists, cycles of transactions": (
            len(transactions),
            partial(check_list_append, transactions),
            40_000,
        ),
    }
    rows, ratios = [], []
    for name, (size, check, asked) in checks.items():
        seconds = _seconds(check, rounds)
        rows.append([name, f"{size:,}", f"{size / seconds:,.0f}", "" if asked is None else f"{asked:,}"])
        if asked is not None:
            ratios.append(Ratio(f"{name}, time of each", seconds / size * 1e9, 1e9 / asked, "ns", 1.0))
    seconds = _seconds(partial(check_register, register(hot)), rounds)
    rows.append([f"one hot key, zones: {seconds:.2f} s", f"{hot:,}", f"{hot / seconds:,.0f}", "200,000"])
    ratios.append(Ratio("one hot key, 1,000,000 operations", seconds / hot * 1e9, 5_000, "ns", 1.0))
    table = markdown(["check", "operations", "per second", "asked for"], rows)
    figures = [Figure.of(each.what, [each.ours], each.unit) for each in ratios]
    return Answer(f"{table}\n\n{ratio_table(ratios)}", ratios, figures)
