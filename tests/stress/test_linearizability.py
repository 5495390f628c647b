"""The search finds an order if and only if there is one among all, whatever the model makes known to it."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any

import pytest

from latchstore.stress import order_search
from latchstore.stress.file_models import CompareAndSetRegister, KeyValue
from latchstore.stress.history import Invocation
from latchstore.stress.linearizability import Call, linearize, linearize_parts
from latchstore.stress.models import REFUSED, UNKNOWN

#: How many random histories each seed tries.
HISTORIES = int(os.environ.get("LATCHSTORE_RANDOM_HISTORIES", "600"))


@pytest.fixture(autouse=True, params=[0, order_search.FEW])
def _few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short histories are searched as long ones are, and as short ones."""
    monkeypatch.setattr(order_search, "FEW", request.param)


def has_an_order(calls: Sequence[Call[Any]], model: Any) -> bool:
    """Try every order of the calls that return, with each choice of the pending ones."""
    certain = [call for call in calls if call.end is not None]
    pending = [call for call in calls if call.end is None]
    return any(
        _some_order([*certain, *some], model, model.initial)
        for count in range(len(pending) + 1)
        for some in combinations(pending, count)
    )


def _some_order(calls: Sequence[Call[Any]], model: Any, state: Any) -> bool:
    if not calls:
        return True
    for first in calls:
        others = [call for call in calls if call is not first]
        if any(other.end is not None and other.end < first.begin for other in others):
            continue
        after = model.step(state, first.operation, first.answer)
        if after is not REFUSED and _some_order(others, model, after):
            return True
    return False


def random_calls(chance: random.Random, model: Any, operations: Sequence[Invocation]) -> list[Call[Any]]:
    """Do operations one at a time, each at a moment of its time; change an answer, or leave some unknown."""
    state = model.initial
    calls: list[Call[Any]] = []
    for number, operation in enumerate(operations):
        moment = 10 * number
        answer, after = answered(operation, state)
        begin, end = moment - chance.randrange(25), moment + chance.randrange(25)
        if chance.random() < 0.15:
            # Whether one took effect that nobody saw end is a matter of chance.
            state = after if chance.random() < 0.5 else state
            calls.append(Call(number, operation, UNKNOWN, begin, None))
            continue
        state = after
        calls.append(Call(number, operation, answer, begin, end))
    for place, call in enumerate(calls):
        if call.end is not None and call.operation.name in ("read", "cas", "get") and chance.random() < 0.3:
            answer = other_answer(chance, call, calls)
            calls[place] = Call(call.thread, call.operation, answer, call.begin, call.end)
    chance.shuffle(calls)
    return calls


def other_answer(chance: random.Random, call: Call[Any], calls: Sequence[Call[Any]]) -> Any:
    """Return what the call may have got as well, right or wrong."""
    if call.operation.name == "cas":
        return not call.answer
    if call.operation.name == "get":
        written = [other.operation.argument for other in calls if other.operation.argument]
        return "".join(chance.sample(written, chance.randrange(min(4, len(written) + 1))))
    return chance.choice([other.answer for other in calls if other.operation.name == "read"])


def answered(operation: Invocation, state: Any) -> tuple[Any, Any]:
    """Return what an operation gives in a state, and the state after it."""
    argument = operation.argument
    match operation.name:
        case "read" | "get":
            return state, state
        case "write" | "put":
            return None, argument
        case "append":
            return None, state + argument
        case _:
            return state == argument[0], argument[1] if state == argument[0] else state


def register_operations(chance: random.Random, count: int) -> list[Invocation]:
    values = (None, 1, 2, 3)
    return [
        Invocation(name, None, {"read": None, "write": chance.choice(values[1:])}.get(name, pair))
        for _ in range(count)
        for pair in [(chance.choice(values), chance.choice(values[1:]))]
        for name in [chance.choice(("read", "read", "write", "cas", "cas"))]
    ]


def text_operations(chance: random.Random, count: int) -> list[Invocation]:
    # Of the first none begins with another one; "a" and "ab" can be mistaken; of the last some come twice.
    texts = chance.choice((["a.", "b.", "c.", "d.", "e.", "f.", "g."], ["a", "ab", "b", "ba"], ["a", "b"]))
    shuffled = chance.sample(texts, len(texts)) * 4
    operations = []
    for place in range(count):
        name = chance.choice(("get", "get", "append", "append", "put"))
        operations.append(Invocation(name, None, None if name == "get" else shuffled[place]))
    return operations


@pytest.mark.parametrize("seed", range(4))
def test_registers_with_compare_and_set(seed: int) -> None:
    chance = random.Random(seed)
    found = {"valid": 0, "invalid": 0}
    for _ in range(HISTORIES):
        model = CompareAndSetRegister()
        calls = random_calls(chance, model, register_operations(chance, chance.randrange(2, 8)))
        expected = "valid" if has_an_order(calls, model) else "invalid"
        found[expected] += 1
        check(calls, model, expected)
    assert min(found.values()) > HISTORIES / 10, "both answers were asked for"


@pytest.mark.parametrize("seed", range(4))
def test_texts(seed: int) -> None:
    chance = random.Random(seed)
    found = {"valid": 0, "invalid": 0}
    for _ in range(HISTORIES):
        operations = text_operations(chance, chance.randrange(2, 8))
        model = KeyValue(operations)
        calls = random_calls(chance, model, operations)
        expected = "valid" if has_an_order(calls, model) else "invalid"
        found[expected] += 1
        check(calls, model, expected)
    assert min(found.values()) > HISTORIES / 10, "both answers were asked for"


class Bare:
    """A model that makes nothing known but what it must, whose states may be none that can be hashed."""

    def __init__(self, model: Any, hashable: bool) -> None:
        self._model = model
        self._hashable = hashable
        self.initial = model.initial if hashable else [model.initial]

    def step(self, state: Any, operation: Invocation, answer: Any) -> Any:
        after = self._model.step(state if self._hashable else state[0], operation, answer)
        return after if after is REFUSED or self._hashable else [after]


def check(calls: Sequence[Call[Any]], model: Any, expected: str) -> None:
    """See that the search has the right answer, and an order that is one, in all ways."""
    for each in (model, Bare(model, hashable=True), Bare(model, hashable=False)):
        found = linearize(calls, each)
        assert found.answer == expected, (each, calls)
        state = each.initial
        for place, call in enumerate(found.order):
            assert all(call.end is None or call.end >= other.begin for other in found.order[:place])
            state = each.step(state, call.operation, call.answer)
            assert state is not REFUSED
        assert state == found.state
        left = [call for call in calls if call.end is not None and call not in found.order]
        assert (left == []) is (expected == "valid")
        assert set(map(id, found.refused)) <= set(map(id, left))
        assert bool(found.refused) is (expected == "invalid")


class Cells:
    """A register for each key."""

    initial = None

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Any:
        if operation.name == "write":
            return operation.argument
        return state if answer in (state, UNKNOWN) else REFUSED

    def part(self, operation: Invocation) -> Hashable:
        return operation.key


def test_parts_are_searched_one_by_one() -> None:
    calls = [
        Call(0, Invocation("write", "a", 1), None, 0, 1),
        Call(0, Invocation("read", "a", None), 1, 2, 3),
        Call(0, Invocation("read", "b", None), 1, 4, 5),
    ]
    found = dict(linearize_parts(calls, Cells()))
    assert {part: each.answer for part, each in found.items()} == {"a": "valid", "b": "invalid"}
    assert found["b"].refused == (calls[2],)
    assert found["b"].order == ()


def test_a_part_without_an_order_is_found_before_a_long_search_ends() -> None:
    # All orders of the writes have to be tried before it is certain that nobody wrote 99.
    hard = [Call(number, Invocation("write", "hard", number), None, 0, 100) for number in range(16)]
    hard.append(Call(99, Invocation("read", "hard", None), 99, 0, 100))
    wrong = Call(0, Invocation("read", "wrong", None), 1, 0, 1)
    part, found = next(linearize_parts([*hard, wrong], Cells()))
    assert (part, found.answer) == ("wrong", "invalid")


def test_the_search_ends_at_the_first_order() -> None:
    writes = [Call(number, Invocation("write", "k", number), None, 0, 100) for number in range(200)]
    found = linearize(writes, Cells())
    assert found.answer == "valid"
    assert found.steps == len(writes)


def test_limits() -> None:
    hard = [Call(number, Invocation("write", "k", number), None, 0, 100) for number in range(16)]
    hard.append(Call(99, Invocation("read", "k", None), 99, 0, 100))
    few = linearize(hard, Cells(), steps=100)
    assert (few.answer, few.steps) == ("unknown", 100)
    assert len(few.order) == 16
    assert few.refused == (hard[-1],)
    assert linearize(hard, Cells(), seconds=0).answer == "unknown"
    assert linearize([], Cells(), steps=0).answer == "valid"


def test_pending_calls_that_ask_for_the_same_are_tried_once() -> None:
    adds = [Call(number, Invocation("write", "k", 1), UNKNOWN, 0, None) for number in range(40)]
    found = linearize([*adds, Call(99, Invocation("read", "k", None), 2, 1, 2)], Cells())
    assert found.answer == "invalid"
    assert found.steps < 10
