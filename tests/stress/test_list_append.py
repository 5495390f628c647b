"""Each anomaly of lists has its history, and the analysis agrees with a search of all orders."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest

from latchstore.stress.history import Outcome
from latchstore.stress.list_append import Append, ListTransaction, Read, check_list_append
from latchstore.stress.verdict import VALID


def append(key: str, value: int) -> Append:
    return Append(key, value)


def read(key: str, *values: int) -> Read:
    return Read(key, values)


def at_once(*transactions: Sequence[Append | Read]) -> list[ListTransaction]:
    """Return transactions that all overlap."""
    return [ListTransaction(number, tuple(actions), 0, 100) for number, actions in enumerate(transactions, 1)]


def in_turn(*transactions: Sequence[Append | Read]) -> list[ListTransaction]:
    """Return transactions one after the other."""
    return [
        ListTransaction(number, tuple(actions), 10 * number, 10 * number + 5)
        for number, actions in enumerate(transactions, 1)
    ]


def rolled_back(transaction: ListTransaction) -> ListTransaction:
    return ListTransaction(
        transaction.number, transaction.actions, transaction.begin, transaction.end, "fail"
    )


def interrupted(transaction: ListTransaction) -> ListTransaction:
    return ListTransaction(transaction.number, transaction.actions, transaction.begin, None, "info")


def strictly_serializable(transactions: Sequence[ListTransaction]) -> bool:
    """Try all orders; transactions that nobody saw end may be left out."""
    certain = [each for each in transactions if each.outcome == "ok"]
    uncertain = [each for each in transactions if each.outcome == "info"]
    return any(
        _some_order([*certain, *some], {})
        for count in range(len(uncertain) + 1)
        for some in combinations(uncertain, count)
    )


def _some_order(transactions: Sequence[ListTransaction], lists: dict[str, tuple[int, ...]]) -> bool:
    if not transactions:
        return True
    for first in transactions:
        others = [each for each in transactions if each is not first]
        if any(each.outcome == "ok" and each.end is not None and each.end < first.begin for each in others):
            continue
        after = _applied(first, lists)
        if after is not None and _some_order(others, after):
            return True
    return False


def _applied(
    transaction: ListTransaction, lists: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]] | None:
    after = dict(lists)
    for action in transaction.actions:
        if isinstance(action, Append):
            after[action.key] = (*after.get(action.key, ()), action.value)
        elif transaction.outcome == "ok" and action.values != after.get(action.key, ()):
            return None
    return after


ANOMALIES = {
    "internal: transaction 1 read [] of 'x', but its own earlier actions make the list to end": at_once(
        [append("x", 1), read("x")]
    ),
    "internal: transaction 1 read [2] of 'x', but its own earlier actions make the list [2, 1]": at_once(
        [read("x", 2), append("x", 1), read("x", 2)], [append("x", 2)]
    ),
    "internal: transaction 1 read [1] of 'x' before it appended 1": at_once([read("x", 1), append("x", 1)]),
    "duplicate: ": at_once([append("x", 1)], [read("x", 1, 1)]),
    "garbage: ": at_once([append("x", 1)], [read("x", 7)]),
    "G1a (aborted read): ": [
        rolled_back(at_once([append("x", 1)])[0]),
        ListTransaction(2, (read("x", 1),), 0, 100),
    ],
    "G1a (aborted read), dirty update: transaction 3 read [1, 2] of 'x', but transaction 1": [
        rolled_back(in_turn([append("x", 1)])[0]),
        *in_turn([], [append("x", 2)], [read("x", 1, 2)])[1:],
    ],
    "G1b (intermediate read): ": at_once([append("x", 1), append("x", 2)], [read("x", 1)]),
    "incompatible order: ": at_once([append("x", 1)], [append("x", 2)], [read("x", 1, 2)], [read("x", 2, 1)]),
    "incompatible order: transaction 2 read [1, 2, 3] of 'x', to which transaction 1 appended [2, 1]": (
        at_once([append("x", 2), append("x", 1)], [append("x", 3), read("x", 1, 2, 3)])
    ),
    "G0 (write cycle): ": at_once(
        [append("x", 1), append("y", 1)],
        [append("x", 2), append("y", 2)],
        [read("x", 1, 2)],
        [read("y", 2, 1)],
    ),
    "G1c (circular flow): ": at_once([append("x", 1), read("y", 1)], [append("y", 1), read("x", 1)]),
    "G-single (read skew): ": at_once([append("x", 1), append("y", 1)], [read("x", 1), read("y")]),
    "lost update: transactions 2 and 3 both read [1] of 'x' and appended to it": in_turn(
        [append("x", 1)], [read("x", 1), append("x", 2)], [read("x", 1), append("x", 3)]
    ),
    "lost update: transactions 1 and 2 both read [] of 'x'": at_once(
        [read("x"), append("x", 1)], [read("x"), append("x", 2)], [read("x", 1, 2)]
    ),
    "G2 (write skew): ": at_once([read("x"), append("y", 1)], [read("y"), append("x", 1)]),
    # Nobody saw the end of the first, but what it appended to x: so it has appended to y as well.
    "G-single (read skew): T2 read 'y'": [
        interrupted(at_once([append("x", 1), append("y", 1)])[0]),
        *at_once([], [read("x", 1), read("y")])[1:],
    ],
    # One after the other, so that time alone tells.
    "G-single (read skew) in real time: ": in_turn([append("x", 1)], [read("x")]),
    "G0 (write cycle) in real time: ": [
        *in_turn([append("x", 1)], [append("x", 2)]),
        *at_once([], [], [read("x", 2, 1)])[2:],
    ],
    "G1c (circular flow) in real time: ": in_turn([read("x", 1)], [append("x", 1)]),
}


@pytest.mark.parametrize(("story", "transactions"), ANOMALIES.items(), ids=ANOMALIES.keys())
def test_an_anomaly_is_named(story: str, transactions: list[ListTransaction]) -> None:
    verdict = check_list_append(transactions)
    assert verdict.answer == "invalid"
    assert verdict.reason.startswith(story)
    assert not strictly_serializable(transactions)


def test_the_story_of_a_cycle() -> None:
    verdict = check_list_append(ANOMALIES["G-single (read skew): "])
    assert verdict.reason == (
        "G-single (read skew): T2 read 'y' before the other appended 1, so T2 is before T1 (rw); "
        "T1 appended 1 to 'x', which the other read, so T1 is before T2 (wr): a contradiction"
    )


VALID_RUNS = {
    "nothing": [],
    "one after the other": in_turn([append("x", 1)], [read("x", 1), append("x", 2)], [read("x", 1, 2)]),
    "at once, seen late or early": at_once([append("x", 1)], [read("x")], [read("x", 1)]),
    "rolled back and not seen": [rolled_back(in_turn([append("x", 1)])[0]), *in_turn([], [read("x")])],
    "own appends": at_once([append("x", 1), append("x", 2), read("x", 1, 2)]),
    "its own middle": at_once([append("x", 1), read("x", 1), append("x", 2)], [read("x", 1, 2)]),
    "unknown and seen": [
        ListTransaction(1, (append("x", 1),), 0, None, "info"),
        *in_turn([], [read("x", 1)])[1:],
    ],
    "unknown and not seen": [
        ListTransaction(1, (append("x", 1),), 0, None, "info"),
        *in_turn([], [read("x")])[1:],
    ],
}


@pytest.mark.parametrize("transactions", VALID_RUNS.values(), ids=VALID_RUNS.keys())
def test_a_run_that_is_right(transactions: list[ListTransaction]) -> None:
    assert strictly_serializable(transactions)
    assert check_list_append(transactions) == VALID


def test_a_value_that_is_appended_twice_tells_nothing() -> None:
    verdict = check_list_append(at_once([append("x", 1)], [append("x", 1)]))
    assert verdict.answer == "unknown"
    assert verdict.reason == "1 was appended to 'x' twice"


def random_run(chance: random.Random, count: int, faulty: bool) -> list[ListTransaction]:
    """Run transactions one at a time, each at a moment of its time; a faulty run reads the past at times."""
    lists: list[dict[str, tuple[int, ...]]] = [{}]
    transactions = []
    value = 0
    for number in range(count):
        moment = 10 * number
        current = dict(lists[-1])
        outcome: Outcome = chance.choices(("ok", "info", "fail"), (8, 1, 1))[0]
        actions: list[Append | Read] = []
        for _ in range(chance.randrange(1, 4)):
            key = chance.choice("xy")
            if chance.random() < 0.5:
                value += 1
                actions.append(append(key, value))
                current[key] = (*current.get(key, ()), value)
            else:
                seen = chance.choice(lists) if faulty and chance.random() < 0.3 else current
                actions.append(read(key, *seen.get(key, ())))
        begin, end = moment - chance.randrange(25), moment + chance.randrange(25)
        # Whether one took effect that nobody saw end is a matter of chance.
        if outcome == "ok" or (outcome == "info" and chance.random() < 0.5):
            lists.append(current)
        transactions.append(
            ListTransaction(number, tuple(actions), begin, None if outcome == "info" else end, outcome)
        )
    return transactions


@pytest.mark.parametrize("seed", range(4))
def test_the_analysis_agrees_with_all_orders_on_random_runs(seed: int) -> None:
    chance = random.Random(seed)
    answers = {True: 0, False: 0}
    for _ in range(1_500):
        transactions = random_run(chance, chance.randrange(2, 6), faulty=True)
        expected = strictly_serializable(transactions)
        answers[expected] += 1
        verdict = check_list_append(transactions)
        assert verdict.answer == ("valid" if expected else "invalid"), (verdict, transactions)
    assert min(answers.values()) > 100, "both answers were asked for"


def wild_run(chance: random.Random) -> list[ListTransaction]:
    """Return what may have been read if anything may: some reads are right, others have any values."""
    transactions = random_run(chance, chance.randrange(2, 6), faulty=chance.random() < 0.5)
    values: dict[str, list[int]] = {"x": [], "y": []}
    for transaction in transactions:
        for action in transaction.actions:
            if isinstance(action, Append):
                values[action.key].append(action.value)
    changed = []
    wildness = chance.choice((0.1, 0.3, 0.7))
    for transaction in transactions:
        actions = list(transaction.actions)
        for place, action in enumerate(actions):
            if isinstance(action, Read) and chance.random() < wildness:
                actions[place] = read(action.key, *any_list(chance, action.values, values[action.key]))
        if chance.random() < 0.2:
            chance.shuffle(actions)
        changed.append(replace(transaction, actions=tuple(actions)))
    return changed


def any_list(chance: random.Random, right: tuple[int, ...], values: list[int]) -> list[int]:
    """Return a part of a list, a list that goes on with something else, or any values in any order."""
    if chance.random() < 0.3:
        return list(right[: chance.randrange(len(right) + 1)])
    others = [value for value in values if value not in right]
    if chance.random() < 0.5:
        return [*right, *chance.sample(others, chance.randrange(len(others) + 1))]
    return chance.sample(values, chance.randrange(len(values) + 1))


@pytest.mark.parametrize("seed", range(4))
def test_the_analysis_agrees_with_all_orders_on_wild_runs(seed: int) -> None:
    chance = random.Random(seed)
    answers = {True: 0, False: 0}
    for _ in range(int(os.environ.get("LATCHSTORE_RANDOM_HISTORIES", "1500"))):
        transactions = wild_run(chance)
        expected = strictly_serializable(transactions)
        answers[expected] += 1
        verdict = check_list_append(transactions)
        assert verdict.answer == ("valid" if expected else "invalid"), (verdict, transactions)
    assert min(answers.values()) > 100, "both answers were asked for"


def test_no_false_alarm_in_a_long_run() -> None:
    transactions = random_run(random.Random(1), 2_000, faulty=False)
    assert check_list_append(transactions) == VALID


def test_one_wrong_read_in_a_long_run_is_found() -> None:
    transactions = random_run(random.Random(1), 2_000, faulty=False)
    late = ListTransaction(9_999, (read("x"),), 10**6, 10**6 + 1)
    verdict = check_list_append([*transactions, late])
    assert verdict.answer == "invalid"
    assert "T9999" in verdict.reason
