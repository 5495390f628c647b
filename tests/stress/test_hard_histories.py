"""Long histories of many clients are searched in few steps; what shortens a search changes no answer."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from latchstore.stress import order_search
from latchstore.stress.file_models import CompareAndSetRegister, KeyValue, Register
from latchstore.stress.history import Invocation, Operation
from latchstore.stress.linearizability import Linearization, call_of, check_linearizable, linearize
from latchstore.stress.smallest import smallest_part
from tests.stress.test_linearizability import answered, has_an_order, random_calls


@pytest.fixture(autouse=True)
def _nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short histories are searched as long ones are."""
    monkeypatch.setattr(order_search, "FEW", 0)


def recorded(seed: int, clients: int, count: int, asked: Any, initial: Any = None) -> list[Operation]:
    """Let clients call something at random times; each call takes effect at a random moment of it."""
    chance = random.Random(seed)
    state, order = initial, itertools.count()
    events: list[tuple[float, int, int, Invocation | None, float]] = []
    for client in range(clients):
        heapq.heappush(events, (chance.random(), next(order), client, None, 0.0))
    operations: list[Operation] = []
    while len(operations) < count:
        now, _, client, taking_effect, begun = heapq.heappop(events)
        if taking_effect is None:
            moment = now + chance.expovariate(1)
            heapq.heappush(events, (moment, next(order), client, asked(chance), now))
            continue
        answer, state = answered(taking_effect, state)
        end = now + chance.expovariate(1)
        name, key, argument = taking_effect
        # The times are floats, as those of other programs may be.
        operations.append(Operation(client, name, key, argument, answer, begun, end))  # type: ignore[arg-type]
        heapq.heappush(events, (end + chance.expovariate(4), next(order), client, None, 0.0))
    return operations


def of_register(values: int) -> Any:
    return lambda chance: (
        Invocation("read", None, None)
        if chance.random() < 0.5
        else Invocation("write", None, chance.randrange(values))
    )


def of_cas(values: int) -> Any:
    def asked(chance: random.Random) -> Invocation:
        pair = [chance.randrange(values), chance.randrange(values)]
        name = chance.choice(("read", "write", "cas"))
        return Invocation(name, None, {"read": None, "write": pair[0], "cas": pair}[name])

    return asked


def of_texts(chance: random.Random) -> Invocation:
    if chance.random() < 0.3:
        return Invocation("get", None, None)
    return Invocation("append", None, f"x {chance.randrange(10**9)} y")


def found_in(operations: list[Operation], model: Any, steps: int = 100_000) -> Linearization[Any]:
    return linearize([call_of(each) for each in operations], model, steps=steps)


@pytest.mark.parametrize(
    ("clients", "asked", "model"),
    [
        (20, of_register(100), Register),
        (40, of_register(10), Register),
        (40, of_cas(5), CompareAndSetRegister),
    ],
)
def test_many_clients_of_a_register(clients: int, asked: Any, model: Any) -> None:
    operations = recorded(1, clients, 1_500, asked)
    assert found_in(operations, model()).answer == "valid"
    last = max((each for each in operations if each.name == "read"), key=lambda each: each.begin)
    wrong = [replace(each, result="never") if each is last else each for each in operations]
    found = found_in(wrong, model())
    assert found.answer == "invalid"
    assert found.steps < 50_000


def test_many_clients_that_append() -> None:
    operations = recorded(2, 8, 300, of_texts, "")
    assert found_in(operations, KeyValue(each.invocation for each in operations)).steps < 3_000


def test_a_stale_read_is_found_before_all_orders_are_tried() -> None:
    operations = recorded(3, 20, 2_000, of_register(1_000_000))
    reads = sorted((each for each in operations if each.name == "read"), key=lambda each: each.begin)
    wrong = [replace(each, result=reads[10].result) if each is reads[-10] else each for each in operations]
    found = found_in(wrong, Register(), steps=50_000)
    assert found.answer == "invalid"
    assert found.refused[0].answer == reads[10].result


def put_or_get(chance: random.Random, count: int) -> list[Invocation]:
    return [
        Invocation("put", None, chance.choice("abc"))
        if chance.random() < 0.5
        else Invocation("get", None, None)
        for _ in range(count)
    ]


def write_or_read(chance: random.Random, count: int) -> list[Invocation]:
    return [
        Invocation("write", None, chance.choice((1, 2, 3)))
        if chance.random() < 0.5
        else Invocation("read", None, None)
        for _ in range(count)
    ]


@pytest.mark.parametrize(("operations_of", "model"), [(put_or_get, KeyValue), (write_or_read, Register)])
def test_calls_that_overwrite_the_state(operations_of: Any, model: Any) -> None:
    chance = random.Random(4)
    answers = {"valid": 0, "invalid": 0}
    for _ in range(1_500):
        calls = random_calls(chance, model(), operations_of(chance, chance.randrange(2, 8)))
        expected = "valid" if has_an_order(calls, model()) else "invalid"
        answers[expected] += 1
        assert linearize(calls, model()).answer == expected, calls
    assert min(answers.values()) > 30, "both answers were asked for"


def test_the_smallest_part_has_no_order_either() -> None:
    operations = recorded(5, 5, 400, of_cas(5))
    reads = sorted((each for each in operations if each.name == "read"), key=lambda each: each.begin)
    wrong = [replace(each, result=77) if each is reads[-20] else each for each in operations]
    verdict = check_linearizable(wrong, CompareAndSetRegister())
    part, found = smallest_part(wrong, verdict, CompareAndSetRegister(), 60.0)
    assert found.answer == "invalid"
    assert len(part) < 30
    assert [each for each in part if each.result == 77]
    assert {id(each) for each in part} <= {id(each) for each in wrong}
