"""Checks whether some sequential order of the calls explains the results of a run.

The search is that of ``linearizability.py``. Without a user's model, its state is the order of the calls so
far, whose answers the `Specification` provides: so two orders that leave the object in different states are
never confused.

Thread safety: used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from latchstore.stress.linearizability import Call as SearchedCall
from latchstore.stress.linearizability import linearize
from latchstore.stress.linearizability import states_of as model_states
from latchstore.stress.models import REFUSED, Model
from latchstore.stress.testing.answers import UNKNOWN_ANSWER, WAITS, Break, Record
from latchstore.stress.testing.execution import Run
from latchstore.stress.testing.program import Call
from latchstore.stress.testing.specification import Order, Specification
from latchstore.stress.verdict import Answer as VerdictAnswer

#: The maximum number of steps in the search for an order of one run.
BUDGET = 50_000


class _Question(Enum):
    """The additional checks of an order that has all calls which returned."""

    STATE = "the final state"
    WAITING = "the calls that wait"


@dataclass(frozen=True)
class Judgement:
    """The result of the search for an order.

    Attributes
    ----------
    answer : str
        ``"valid"``, ``"invalid"`` or ``"unknown"``.
    broken : Break or None
        Set for an invalid run.
    """

    answer: VerdictAnswer
    broken: Break | None = None


class _Orders:
    """A model whose states are orders of calls.

    Parameters
    ----------
    specification : Specification
    waiting : tuple of Call
        The calls that did not return.
    """

    initial: Order = ()

    def __init__(self, specification: Specification, waiting: tuple[Call, ...]) -> None:
        self._specification = specification
        self._waiting = waiting
        self.longest: Break | None = None

    def step(self, state: Order, operation: Call | _Question, answer: Any) -> Any:
        """Return the extended order, if the call has its answer there."""
        if operation is _Question.WAITING:
            return state if self._all_wait(state) else REFUSED
        if isinstance(operation, _Question):
            expected = self._specification.state(state)
            call, following = None, state
        else:
            expected = self._specification.answer(state, operation)
            call, following = operation, (*state, operation)
        if expected == answer:
            return following
        self._note(Break(state, call, expected, answer))
        return REFUSED

    def _all_wait(self, order: Order) -> bool:
        for call in self._waiting:
            answer = self._specification.answer(order, call)
            if answer != WAITS:
                self._note(Break(order, call, answer, WAITS))
                return False
        return True

    def _note(self, broken: Break) -> None:
        if self.longest is None or len(broken.order) >= len(self.longest.order):
            self.longest = broken


class _Modelled:
    """A user's model, which also checks the waiting calls."""

    def __init__(self, model: Model[Any, Any, Any], waiting: tuple[Call, ...]) -> None:
        self._model = model
        self._waiting = waiting
        self.initial: Any = model.initial

    def step(self, state: Any, operation: Call | _Question, answer: Any) -> Any:
        """Return the user's state after a call."""
        if operation is _Question.STATE:
            return state
        if operation is _Question.WAITING:
            answers = (self._model.step(state, call, WAITS.result) for call in self._waiting)
            return REFUSED if REFUSED in answers else state
        return self._model.step(state, operation, answer.result)


def check(run: Run, specification: Specification, model: Model[Any, Any, Any] | None) -> Judgement:
    """Search for an order that explains a run."""
    returned = [record for record in run.records if record.end is not None]
    waiting = tuple(record.call for record in run.records if record.end is None)
    calls = [_searched(record) for record in returned]
    now = max((record.end or 0 for record in returned), default=0) + 1
    if waiting:
        calls.append(SearchedCall(None, _Question.WAITING, None, now, now))
    elif run.state is not None:
        calls.append(SearchedCall(None, _Question.STATE, run.state, now, now))
    if model is not None:
        return _by_model(calls, _Modelled(model, waiting))

    def work() -> Judgement:
        orders = _Orders(specification, waiting)
        answer = linearize(calls, orders, steps=BUDGET).answer
        return Judgement(answer, orders.longest if answer == "invalid" else None)

    return specification.within(work)


def _by_model(calls: Sequence[SearchedCall[Any]], model: _Modelled) -> Judgement:
    found = linearize(calls, model, steps=BUDGET)
    if found.answer != "invalid":
        return Judgement(found.answer)
    order = tuple(each.operation for each in found.order if isinstance(each.operation, Call))
    stuck = found.refused[0]
    if not isinstance(stuck.operation, Call):
        return Judgement("invalid", Break(order, None, UNKNOWN_ANSWER, WAITS))
    return Judgement("invalid", Break(order, stuck.operation, UNKNOWN_ANSWER, stuck.answer))


def _searched(record: Record) -> SearchedCall[Any]:
    return SearchedCall(record.call.thread, record.call, record.answer, record.begin, record.end)


def states_of(
    broken: Break, specification: Specification, model: Model[Any, Any, Any] | None, run: Run
) -> tuple[str, ...]:
    """Return the states at the beginning and after each explained call, as text."""
    order = broken.order
    if model is None:
        prefixes = [order[:size] for size in range(len(order) + 1)]
        states = specification.within(lambda: tuple(map(specification.shown, prefixes)))
        return states if any(states) else ()
    searched = {id(record.call): _searched(record) for record in run.records}
    return model_states((searched[id(call)] for call in order), _Modelled(model, ()))
