"""The check by revisions agrees with a try of all orders, and each anomaly has its history."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from latchstore.stress.history import History, Operation, Outcome
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import StoreModel, replayed
from latchstore.stress.revision_order import changes, check_revision_order
from latchstore.stress.verdict import VALID
from latchstore.stress.workloads.several_keys import SeveralKeys


def op(
    begin: int,
    end: int | None,
    *steps: tuple[str, str, Any, Any],
    revision: int | None = None,
    outcome: Outcome = "ok",
) -> Operation:
    argument = [[name, key, value] for name, key, value, _ in steps]
    results = [result for *_, result in steps]
    return Operation(0, "steps", "k", argument, results, begin, end, outcome, revision=revision)


def write(begin: int, end: int, revision: int, **values: int) -> Operation:
    return op(begin, end, *(("set", key, value, None) for key, value in values.items()), revision=revision)


def read(begin: int, end: int, **values: int | None) -> Operation:
    return op(begin, end, *(("get", key, None, value) for key, value in values.items()))


RIGHT = {
    "nothing": [],
    "one after the other": [write(0, 1, 1, a=1), read(2, 3, a=1), write(4, 5, 2, a=2), read(6, 7, a=2)],
    "overlapping, against the order of the beginnings": [write(0, 9, 2, a=2), write(1, 9, 1, a=1)],
    "a read beside a write": [write(0, 9, 1, a=1), read(1, 2, a=None), read(3, 4, a=1)],
    "a key that nobody writes": [write(0, 1, 1, a=1), read(2, 3, b=None)],
    "gone and back": [
        write(0, 1, 1, a=1),
        op(2, 3, ("delete", "a", None, True), revision=2),
        op(4, 5, ("exists", "a", None, False)),
        op(4, 5, ("delete", "a", None, False)),
        write(6, 7, 3, a=2),
        op(8, 9, ("exists", "a", None, True)),
    ],
    "gone for good": [
        write(0, 1, 1, a=1),
        op(2, 3, ("delete", "a", None, True), revision=2),
        read(4, 5, a=None),
        op(6, 7, ("exists", "a", None, False)),
    ],
    "what was rolled back does not count": [
        op(0, 1, ("set", "a", 1, None), outcome="fail"),
        read(2, 3, a=None),
    ],
}

WRONG = {
    "stale read": ([write(0, 1, 1, a=1), write(2, 3, 2, a=2), read(4, 5, a=1)], "has no place"),
    "stale read of nothing": ([write(0, 1, 1, a=1), read(2, 3, a=None)], "has no place"),
    "new, then old": (
        [write(0, 1, 1, a=1), write(2, 9, 2, a=2), read(3, 4, a=2), read(5, 6, a=1)],
        "has no place",
    ),
    "read skew": ([write(0, 1, 1, a=1, b=1), write(2, 9, 2, a=2, b=2), read(3, 4, a=1, b=2)], "has no place"),
    "from the future": (
        [read(0, 1, a=1), write(2, 3, 1, a=1), read(4, 5, a=1), read(4, 5, a=None)],
        "has no place",
    ),
    "revisions against time": ([write(0, 1, 2, a=2), write(2, 3, 1, a=1)], "has no place"),
    "a revision given twice": ([write(0, 9, 1, a=1), write(0, 9, 1, a=2)], "both have revision 1"),
    "lost update": (
        [
            op(0, 9, ("get", "a", None, None), ("set", "a", 1, None), revision=1),
            op(0, 9, ("get", "a", None, None), ("set", "a", 2, None), revision=2),
        ],
        "should have had [1, None]",
    ),
    "a delete of nothing": ([op(0, 1, ("delete", "a", None, True), revision=1)], "should have had [False]"),
    "a value that nobody wrote": ([write(0, 1, 1, a=1), read(2, 3, a=7)], "has no place"),
    "there, though gone": (
        [
            write(0, 1, 1, a=1),
            op(2, 3, ("delete", "a", None, True), revision=2),
            op(4, 5, ("exists", "a", None, True)),
        ],
        "has no place",
    ),
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT.keys())
def test_a_history_that_is_right(history: list[Operation]) -> None:
    assert by_brute_force(history)
    assert check_revision_order(history) == VALID
    assert check_linearizable(history, StoreModel()) == VALID


@pytest.mark.parametrize(("history", "word"), WRONG.values(), ids=WRONG.keys())
def test_a_history_with_an_anomaly(history: list[Operation], word: str) -> None:
    assert not by_brute_force(history)
    verdict = check_revision_order(history)
    assert verdict.answer == "invalid"
    assert word in verdict.reason
    assert verdict.operations


def test_what_has_no_revision_is_unknown() -> None:
    assert check_revision_order([op(0, 1, ("set", "a", 1, None))]).answer == "unknown"
    unseen = op(0, None, ("set", "a", 1, None), outcome="info")
    assert check_revision_order([unseen]).answer == "unknown"
    assert check_revision_order([op(0, None, ("get", "a", None, None), outcome="info")]) == VALID


# -- random histories ---------------------------------------------------------------------------------------


def by_brute_force(operations: Sequence[Operation]) -> bool:
    """Try all orders that keep to real time and to the revisions."""
    return _some_order([each for each in operations if each.outcome == "ok"], {}, 0)


def _some_order(operations: Sequence[Operation], values: dict[str, Any], revision: int) -> bool:
    if not operations:
        return True
    for first in operations:
        others = [each for each in operations if each is not first]
        after = dict(values)
        if (
            any(other.precedes(first) for other in others)
            or replayed(after, first.argument) != first.result
            or (changes(first) and (first.revision or 0) <= revision)
        ):
            continue
        if _some_order(others, after, max(revision, first.revision or 0) if changes(first) else revision):
            return True
    return False


def random_history(chance: random.Random) -> list[Operation]:
    """Return what some threads might have done, one thing of which is often changed."""
    values: dict[str, Any] = {}
    operations: list[Operation] = []
    revision = 0
    for number in range(chance.randrange(2, 7)):
        steps = [
            (name, key, number if name == "set" else None, None)
            for key in chance.sample(["a", "b"], chance.randrange(1, 3))
            for name in [chance.choice(("get", "set", "delete", "exists"))]
        ]
        planned = op(0, 0, *steps)
        results = replayed(values, planned.argument)
        if chance.random() < 0.25:
            place = chance.randrange(len(results))
            wrong: dict[str, Any] = {"get": chance.choice([None, 0, 1, 2]), "exists": not results[place]}
            results[place] = wrong.get(steps[place][0], results[place])
        begin = 10 * number - chance.randrange(25)
        end = 10 * number + chance.randrange(25)
        done = op(begin, end, *((*step[:3], result) for step, result in zip(steps, results, strict=True)))
        if changes(done):
            revision += 1
            done = op(
                begin, end, *((*s[:3], r) for s, r in zip(steps, results, strict=True)), revision=revision
            )
        operations.append(done)
    return operations


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_a_try_of_all_orders(seed: int) -> None:
    chance = random.Random(seed)
    answers = {True: 0, False: 0}
    for _ in range(1_500):
        history = random_history(chance)
        expected = by_brute_force(history)
        answers[expected] += 1
        found = check_revision_order(history)
        assert found.answer == ("valid" if expected else "invalid"), (history, found)
        if expected:
            # The search may take other orders besides.
            assert check_linearizable(history, StoreModel()) == VALID
    assert min(answers.values()) > 200, "both answers were asked for"


# -- the workload -------------------------------------------------------------------------------------------


def test_a_store_without_revisions_is_searched_only() -> None:
    operation = Operation(
        0, "transaction of several", "several-keys/0.0", [["set", "several-keys/0.0/0", "1"]], [None], 0, 1
    )
    assert list(SeveralKeys().verdicts(History([operation]))) == ["linearizable"]
    known = Operation(
        0,
        "transaction of several",
        "several-keys/0.0",
        [["set", "several-keys/0.0/0", "1"]],
        [None],
        0,
        1,
        revision=1,
    )
    assert list(SeveralKeys().verdicts(History([known]))) == ["linearizable", "order of revisions"]
