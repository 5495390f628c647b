"""The checkers of one key agree with each other and with the definition, and each anomaly has its history.

The definition is tried by brute force: a history is linearizable if some order of its operations keeps to
real time and is one that the model allows.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from latchstore.stress.history import Operation, Outcome
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import REFUSED, UNKNOWN, KeyModel
from latchstore.stress.registers import check_register
from latchstore.stress.verdict import VALID, Verdict, all_of

#: How many random histories of up to 12 operations each seed tries.
LONG_HISTORIES = int(os.environ.get("LATCHSTORE_RANDOM_HISTORIES", "1250"))


def op(
    name: str,
    begin: int,
    end: int | None,
    argument: Any = None,
    result: Any = None,
    outcome: Outcome = "ok",
    thread: int = 0,
) -> Operation:
    return Operation(thread, name, "k", argument, result, begin, end, outcome)


def write(value: Any, begin: int, end: int | None, outcome: Outcome = "ok") -> Operation:
    return op("set", begin, end, value, outcome=outcome)


def read(value: Any, begin: int, end: int | None, outcome: Outcome = "ok") -> Operation:
    return op("get", begin, end, result=value, outcome=outcome)


def by_brute_force(operations: Sequence[Operation]) -> bool:
    """Try every order that keeps to real time; operations that nobody saw end may be left out."""
    relevant = [each for each in operations if each.outcome != "fail"]
    certain = [each for each in relevant if each.outcome == "ok" and each.end is not None]
    uncertain = [each for each in relevant if each not in certain]
    model = KeyModel()
    return any(
        _some_order([*certain, *some], model.initial, model)
        for count in range(len(uncertain) + 1)
        for some in combinations(uncertain, count)
    )


def _some_order(operations: Sequence[Operation], state: Any, model: KeyModel) -> bool:
    if not operations:
        return True
    for first in operations:
        others = [each for each in operations if each is not first]
        if any(other.precedes(first) for other in others):
            continue
        known = first.outcome == "ok" and first.end is not None
        after = model.step(state, first.invocation, first.result if known else UNKNOWN)
        if after is not REFUSED and _some_order(others, after, model):
            return True
    return False


# -- histories, one for each anomaly ------------------------------------------------------------------------

VALID_HISTORIES = {
    "nothing": [],
    "the initial value": [read(None, 0, 1)],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "a read beside a write, old": [write(1, 0, 1), write(2, 2, 9), read(1, 3, 4)],
    "a read beside a write, new": [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4)],
    "old, then new": [write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6)],
    "two writes at once, either order": [write(1, 0, 9), write(2, 0, 9), read(1, 10, 11)],
    "they meet at one instant": [write(1, 0, 1), read(1, 5, 6), write(2, 2, 5), read(2, 6, 7)],
    "a write that never returned, seen": [write(1, 0, None), read(None, 1, 2), read(1, 5, 6)],
    "a write that never returned, not seen": [write(1, 0, None), read(None, 1, 2), read(None, 5, 6)],
    "a write with an unknown end, seen late": [write(1, 0, 1, "info"), read(None, 5, 6), read(1, 7, 8)],
    "a write that failed": [write(1, 0, 1, "fail"), read(None, 2, 3)],
    "a read of which nothing is known": [write(1, 0, 1), read(7, 2, None, "info")],
    "a read that failed": [write(1, 0, 1), read(7, 2, 3, "fail")],
}

INVALID_HISTORIES = {
    "stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "stale read of nothing": [write(1, 0, 1), read(None, 2, 3)],
    "lost write": [write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)],
    "new, then old": [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)],
    "a read from the future": [read(1, 0, 1), write(1, 2, 3)],
    "a value that nobody wrote": [write(1, 0, 1), read(7, 2, 3)],
    "a value of a write that failed": [write(1, 0, 1, "fail"), read(1, 2, 3)],
    "two readers see two writes in two orders": [
        write(1, 0, 9),
        write(2, 0, 9),
        read(1, 10, 11),
        read(2, 12, 13),
        read(1, 14, 15),
    ],
    "one value within another's time": [write(1, 0, 1), write(2, 3, 4), read(1, 6, 7), read(2, 3, 4)],
    "a write that never returned, seen and gone": [write(1, 0, None), read(1, 1, 2), read(None, 3, 4)],
}


@pytest.mark.parametrize("history", VALID_HISTORIES.values(), ids=VALID_HISTORIES.keys())
def test_a_history_that_is_right(history: list[Operation]) -> None:
    assert by_brute_force(history)
    assert check_register(history) == VALID
    assert check_linearizable(history, KeyModel()) == VALID


@pytest.mark.parametrize("history", INVALID_HISTORIES.values(), ids=INVALID_HISTORIES.keys())
def test_a_history_with_an_anomaly(history: list[Operation]) -> None:
    assert not by_brute_force(history)
    for verdict in (check_register(history), check_linearizable(history, KeyModel())):
        assert verdict.answer == "invalid"
        assert verdict.reason


@pytest.mark.parametrize(
    ("history", "valid"),
    [
        ([op("set", 0, 1, 1), op("delete", 2, 3, result=True), op("exists", 4, 5, result=False)], True),
        ([op("set", 0, 1, 1), op("delete", 2, 3, result=True), op("get", 4, 5, result=1)], False),
        ([op("delete", 0, 1, result=False)], True),
        ([op("delete", 0, 1, result=True)], False),
        ([op("set", 0, 9, 1), op("delete", 0, 9, result=True), op("delete", 0, 9, result=True)], False),
        ([op("swap", 0, 1, [None, 1], True), op("swap", 2, 3, [1, 2], True), read(2, 4, 5)], True),
        ([op("swap", 0, 1, [None, 1], True), op("swap", 0, 1, [None, 2], True)], False),
        ([op("swap", 0, 1, [None, 1], True), op("swap", 0, 1, [None, 2], False)], True),
        ([op("swap", 0, 1, [None, 1], False)], False),
    ],
)
def test_operations_that_only_the_model_knows(history: list[Operation], valid: bool) -> None:
    assert by_brute_force(history) is valid
    assert check_linearizable(history, KeyModel()).answer == ("valid" if valid else "invalid")


def test_an_invalid_verdict_names_the_operations() -> None:
    register = check_register(INVALID_HISTORIES["a value that nobody wrote"])
    assert register.reason == "thread 0: get('k') -> 7: no operation wrote that value"
    assert register.operations == (INVALID_HISTORIES["a value that nobody wrote"][1],)
    zones = check_register(INVALID_HISTORIES["stale read"])
    assert set(zones.operations) == set(INVALID_HISTORIES["stale read"])
    search = check_linearizable(INVALID_HISTORIES["stale read"], KeyModel())
    assert search.operations[0] == INVALID_HISTORIES["stale read"][2]
    assert "thread 0: get('k') -> 1" in search.reason


# -- random histories ---------------------------------------------------------------------------------------


def random_history(chance: random.Random, length: int, names: Sequence[str]) -> list[Operation]:
    """Return operations with random times and results that are often right, sometimes wrong."""
    operations = []
    for number in range(1, length + 1):
        begin = chance.randrange(2 * length)
        end = begin + chance.randrange(1, 6)
        outcome: Outcome = chance.choices(("ok", "info", "fail"), (20, 2, 1))[0]
        name = chance.choice(names)
        argument: Any = None
        result: Any = None
        if name == "set":
            argument = number
        elif name == "get":
            result = chance.choice([None, *range(1, length + 1)])
        elif name == "swap":
            argument = (chance.choice([None, *range(1, length + 1)]), number)
            result = chance.random() < 0.5
        else:
            result = chance.random() < 0.7
        operations.append(op(name, begin, end, argument, result, outcome))
    return operations


@pytest.mark.parametrize("seed", range(4))
def test_all_ways_agree_on_random_registers(seed: int) -> None:
    chance = random.Random(seed)
    answers = {True: 0, False: 0}
    for _ in range(1_000):
        history = random_history(chance, chance.randrange(1, 8), ("set", "get"))
        expected = by_brute_force(history)
        answers[expected] += 1
        word = "valid" if expected else "invalid"
        assert check_register(history).answer == word, history
        assert check_linearizable(history, KeyModel()).answer == word, history
    assert min(answers.values()) > 100, "both answers were asked for"


@pytest.mark.parametrize("seed", range(4))
def test_the_ways_agree_on_long_random_registers(seed: int) -> None:
    chance = random.Random(1_000 + seed)
    valid = 0
    for _ in range(LONG_HISTORIES):
        history = random_history(chance, chance.randrange(1, 13), ("set", "get"))
        answer = check_register(history).answer
        assert check_linearizable(history, KeyModel()).answer == answer, history
        valid += answer == "valid"
    assert LONG_HISTORIES // 25 < valid < LONG_HISTORIES - LONG_HISTORIES // 25


@pytest.mark.parametrize("seed", range(4))
def test_the_search_agrees_with_brute_force_on_all_operations(seed: int) -> None:
    chance = random.Random(seed)
    answers = {True: 0, False: 0}
    for _ in range(1_000):
        names = ("set", "get", "exists", "delete", "swap")
        history = random_history(chance, chance.randrange(1, 8), names)
        expected = by_brute_force(history)
        answers[expected] += 1
        assert check_linearizable(history, KeyModel()).answer == ("valid" if expected else "invalid"), history
    assert min(answers.values()) > 100, "both answers were asked for"


# -- unknown, and the rest ----------------------------------------------------------------------------------


def test_a_value_that_is_written_twice_is_not_for_the_register_check() -> None:
    verdict = check_register([write(1, 0, 1), write(1, 2, 3)])
    assert verdict == Verdict("unknown", "the value 1 is written more than once")


def test_an_operation_that_is_not_for_the_register_check() -> None:
    assert check_register([op("delete", 0, 1)]).answer == "unknown"


def test_the_initial_value_is_a_value_like_others() -> None:
    assert check_register([read(7, 0, 1)], initial=7) == VALID
    assert check_register([write(7, 0, 1)], initial=7).answer == "unknown"


def test_a_search_that_takes_too_many_steps_does_not_know() -> None:
    history = [write(number, 0, 100) for number in range(12)] + [read(99, 0, 100)]
    verdict = check_linearizable(history, KeyModel(), budget=1_000)
    assert verdict.answer == "unknown"
    assert "1,000 steps" in verdict.reason


def test_an_operation_that_no_model_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="'jump' is not an operation on a key"):
        check_linearizable([op("jump", 0, 1)], KeyModel())


def test_what_comes_after_a_cut_depends_on_every_way_the_part_before_can_end() -> None:
    two_writes = [write(1, 0, 9), write(2, 0, 9)]
    for value in (1, 2):
        assert check_linearizable([*two_writes, read(value, 10, 11)], KeyModel()) == VALID
    assert check_linearizable([*two_writes, read(1, 10, 11), read(2, 12, 13)], KeyModel()).answer == "invalid"


def test_the_worst_verdict_counts() -> None:
    unknown, invalid = Verdict("unknown", "?"), Verdict("invalid", "!")
    assert all_of([]) == VALID
    assert all_of([VALID, unknown]) == unknown
    assert all_of([unknown, invalid, VALID]) == invalid


def test_a_verdict_is_not_a_yes_or_no() -> None:
    with pytest.raises(TypeError, match="three answers"):
        bool(VALID)
    assert str(Verdict("invalid", "because")) == "invalid: because"
