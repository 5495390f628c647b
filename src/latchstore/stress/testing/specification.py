"""The sequential specification: runs orders of the calls on fresh objects in one thread.

An object cannot be copied in general, so each order runs from its beginning; its answers are cached, and the
object is reused if the next order extends the previous one.

Thread safety: used by one thread at a time. Orders run as the only thread of a schedule, so that a call that
waits forever is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from latchstore.stress.execution import run_schedule
from latchstore.stress.scope import Scope
from latchstore.stress.strategies import Replay
from latchstore.stress.testing.answers import WAITS, Answer, answer_of, shown_state, state_of
from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.program import Call

R = TypeVar("R")

#: Calls in the order in which they are made.
Order = tuple[Call, ...]

#: No code: a single thread needs no switches.
_NOWHERE = Scope()


class SpecificationError(ValueError):
    """The reference object cannot be made, or making it does not end."""


class Specification:
    """The answers of calls in one thread.

    Parameters
    ----------
    test : Definition
    make : callable
        Returns a fresh object.
    seed : int
        Seed of the global generator of ``random``.
    """

    def __init__(self, test: Definition, make: Callable[[], Any], seed: int = 0) -> None:
        self._test = test
        self._make = make
        self._seed = seed
        self._known: dict[Order, Answer] = {}
        self._states: dict[Order, Answer] = {}
        self._subject: Any = None
        # The order that was run on the subject; None if there is none.
        self._run: Order | None = None
        #: Whether one thread that made calls has kept a lock of the object: its calls may do so.
        self.keeps_locks: bool = False
        # The order being tried: the scheduler ends a call that waits forever by ending its thread.
        self._trying: Order = ()

    def within(self, work: Callable[[], R]) -> R:
        """Return the result of `work`, which may call `answer` and `state`; it restarts after a wait.

        Raises
        ------
        SpecificationError
            If no object can be made.
        """
        while True:
            results: list[R] = []
            errors: list[BaseException] = []

            def body(results: list[R] = results, errors: list[BaseException] = errors) -> None:
                try:
                    results.append(work())
                    self._drop()
                except Exception as error:
                    errors.append(error)

            execution = run_schedule(lambda stage: [], Replay(()), _NOWHERE, finish=body, seed=self._seed)
            self._subject = self._run = None
            self.keeps_locks = self.keeps_locks or execution.kept_lock
            if errors:
                raise errors[0]
            if results:
                return results[0]
            if any(problem.kind != "deadlock" for problem in execution.problems):
                where = self._trying[-1] if self._trying else "make()"
                raise SpecificationError(f"{where}, called in one thread: {execution.problems[0].text}")
            if not self._trying:
                raise SpecificationError("an object waits forever while it is made")
            self._known[self._trying] = WAITS

    def answer(self, order: Order, call: Call) -> Answer:
        """Return the answer of a call after others."""
        longer = (*order, call)
        known = self._known.get(longer)
        if known is None:
            subject = self._after(order)
            self._trying = longer
            known = self._known[longer] = answer_of(self._test, call, subject)
            self._run = longer
        return known

    def answers(self, calls: Sequence[Call]) -> list[Answer]:
        """Return the answers of calls, made one after the other; after one that waits, all wait."""

        def work() -> list[Answer]:
            found: list[Answer] = []
            while len(found) < len(calls) and WAITS not in found:
                order = tuple(calls[: len(found)])
                found.append(self.answer(order, calls[len(found)]))
            return found + [WAITS] * (len(calls) - len(found))

        return self.within(work)

    def state(self, order: Order) -> Answer:
        """Return the final state after calls."""
        known = self._states.get(order)
        if known is None:
            known = self._states[order] = state_of(self._test, self._after(order))
        return known

    def shown(self, order: Order) -> str:
        """Return the state after calls, for reports; empty if there is none to show."""
        return shown_state(self._test, self._after(order)).text

    def _after(self, order: Order) -> Any:
        """Return an object on which an order was run."""
        if self._run != order:
            self._drop()
            self._trying = ()
            self._subject = self._make()
            self._test.setup(self._subject)
            self._run = ()
            for place, call in enumerate(order):
                self._trying = order[: place + 1]
                answer_of(self._test, call, self._subject)
            self._run = order
        return self._subject

    def _drop(self) -> None:
        if self._run is not None:
            self._run, subject = None, self._subject
            self._subject = None
            self._test.teardown(subject)
