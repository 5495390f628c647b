"""Runs a program of coroutine functions as tasks of one event loop.

Thread safety: one thread.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

from latchstore.stress.testing.answers import WAITS, Answer, answer_or_error, shown_state, state_of
from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.event_loop import RandomLoop
from latchstore.stress.testing.execution import Play, Run
from latchstore.stress.testing.program import Call, Program
from latchstore.stress.testing.specification import Order, Specification
from latchstore.stress.tracebacks import raised


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def answer_awaited(test: Definition, call: Call, subject: Any) -> Answer:
    """Make a call on an object in a `RandomLoop`, and return its answer."""
    loop = cast("RandomLoop", asyncio.get_running_loop())
    loop.note_call()
    try:
        result = await _awaited(call.on(test, subject))
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if loop.ending:
            raise
        return answer_or_error(test, error=error)
    finally:
        loop.note_call()
    return answer_or_error(test, result)


class _AsyncPlay(Play):
    """A run whose threads are tasks of one loop."""

    async def play(self) -> None:
        """Make all calls, those of each of the program's threads in one task."""
        try:
            self._subject = subject = await _made(self.test, self.test.make)
            for call in self.program.before:
                await self._call(call, subject)
            tasks = [asyncio.create_task(self._work(calls)) for calls in self.program.threads]
            await asyncio.gather(*tasks)
            for call in self.program.after:
                await self._call(call, subject)
            self.look(subject)
            await _awaited(self.test.teardown(subject))  # type: ignore[func-returns-value]
        except Exception:
            self.problems.append(raised("crash", "outside of all operations"))

    async def _work(self, calls: Sequence[Call]) -> None:
        for call in calls:
            await self._call(call, self._subject)
            if not self._running:
                self.check_invariants(self._subject)

    async def _call(self, call: Call, subject: Any) -> None:
        record = self.begun(call)
        self.returned(record, await answer_awaited(self.test, call, subject))


async def _made(test: Definition, make: Callable[[], Any]) -> Any:
    subject = await _awaited(make())
    await _awaited(test.setup(subject))  # type: ignore[func-returns-value]
    return subject


def run_async(test: Definition, program: Program, invariants: Sequence[str], chance: Random) -> Run:
    """Run a program as tasks of one loop, in an order drawn from `chance`."""
    play = _AsyncPlay(test, program, invariants)
    loop = RandomLoop(chance, detects_polling=True)
    random.seed(f"run {program.seed}")
    try:
        ended = loop.play(play.play())
        run = play.run()
    finally:
        loop.end()
    run.stuck = not ended
    return run


class AsyncSpecification(Specification):
    """The answers of a single task; each order runs from its beginning."""

    def within(self, work: Callable[[], Any]) -> Any:
        """Return the result of `work`."""
        return work()

    def answer(self, order: Order, call: Call) -> Answer:
        """Return the answer of a call after others."""
        longer = (*order, call)
        if longer not in self._known:
            self._known[longer] = self._last(longer, None)
        return self._known[longer]

    def state(self, order: Order) -> Answer:
        """Return the final state after calls."""
        if order not in self._states:
            self._states[order] = self._last(order, lambda subject: state_of(self._test, subject))
        return self._states[order]

    def shown(self, order: Order) -> str:
        """Return the state after calls, for reports."""
        return self._last(order, lambda subject: shown_state(self._test, subject)).text

    def _last(self, order: Order, look: Callable[[Any], Answer] | None) -> Answer:
        """Run an order; return its last answer, or the result of `look` at its end."""
        answers = [WAITS]

        async def play() -> None:
            subject = await _made(self._test, self._make)
            for call in order:
                answers[0] = WAITS
                answers[0] = await answer_awaited(self._test, call, subject)
            if look is not None:
                answers[0] = look(subject)
            await _awaited(self._test.teardown(subject))  # type: ignore[func-returns-value]

        loop = RandomLoop(Random(0), detects_polling=True)  # noqa: S311 (nothing secret)
        random.seed(f"run {self._seed}")
        try:
            loop.play(play())
        finally:
            loop.end()
        return answers[0]
