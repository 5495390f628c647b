"""The calls of one schedule: before the threads, in each thread, and after them.

Thread safety: a `Program` is immutable.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from latchstore.stress.history import AFTER, BEFORE
from latchstore.stress.testing.arguments import ArgumentSource
from latchstore.stress.testing.definition import Definition, OperationSpec

#: Maximum number of calls before and after the threads.
_AROUND = 2


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Attributes
    ----------
    thread : int
        From 0; `BEFORE` or `AFTER` for calls outside the run of the threads.
    name : str
    arguments : dict
    """

    thread: int
    name: str
    arguments: dict[str, Any]

    def on(self, test: Definition, subject: Any) -> Any:
        """Make the call on an object, with copies of the arguments, as it may mutate them."""
        return getattr(test, self.name)(subject, **copy.deepcopy(self.arguments))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@dataclass(frozen=True, eq=False)
class Program:
    """The calls of one schedule.

    Attributes
    ----------
    seed : int
        The seed that it was drawn with.
    before, after : tuple of Call
    threads : tuple of tuples of Call
    """

    seed: int
    before: tuple[Call, ...]
    threads: tuple[tuple[Call, ...], ...]
    after: tuple[Call, ...]

    @property
    def size(self) -> int:
        """Number of calls."""
        return len(self.before) + sum(map(len, self.threads)) + len(self.after)

    def calls(self) -> Iterator[Call]:
        """Return all calls, thread by thread."""
        yield from self.before
        for calls in self.threads:
            yield from calls
        yield from self.after

    def smaller(self) -> Iterator[Program]:
        """Yield programs with something omitted: a thread, then calls around the threads, then a call."""
        busy = [number for number, calls in enumerate(self.threads) if calls]
        if len(busy) > 1:
            for number in busy:
                yield replace(self, threads=_without(self.threads, number, ()))
        if self.after:
            yield replace(self, after=())
        if self.before:
            yield replace(self, before=())
        for number in busy:
            calls = self.threads[number]
            for place in range(len(calls) if len(calls) > 1 else 0):
                fewer = (*calls[:place], *calls[place + 1 :])
                yield replace(self, threads=_without(self.threads, number, fewer))
        for place in range(len(self.after) if len(self.after) > 1 else 0):
            yield replace(self, after=(*self.after[:place], *self.after[place + 1 :]))
        for place in range(len(self.before) if len(self.before) > 1 else 0):
            yield replace(self, before=(*self.before[:place], *self.before[place + 1 :]))


def _without(
    threads: tuple[tuple[Call, ...], ...], number: int, calls: tuple[Call, ...]
) -> tuple[tuple[Call, ...], ...]:
    # Threads keep their numbers, by which schedules identify them.
    return (*threads[:number], calls, *threads[number + 1 :])


class ProgramSource:
    """Draws programs.

    Parameters
    ----------
    test : Definition
    operations : sequence of OperationSpec
    seed : int
        Seed for the examples of strategies; programs have seeds of their own.
    """

    def __init__(self, test: Definition, operations: Sequence[OperationSpec], seed: int) -> None:
        self._test = test
        self._operations = operations
        self._argument_sources = {
            (each.name, name): ArgumentSource(values, seed)
            for each in operations
            for name, values in each.sources.items()
        }

    def draw(self, seed: int, *, native: bool = False) -> Program:
        """Return the program of a seed; without blocking operations if it is for native threads."""
        chance = Random(f"program {seed}")  # noqa: S311 (nothing secret)
        # Before and after the threads, no other thread could end the wait of a blocking operation.
        others = [each for each in self._operations if not each.blocking]
        operations = others if native else self._operations

        def some(thread: int, least: int, most: int, kinds: Sequence[OperationSpec]) -> tuple[Call, ...]:
            number = chance.randint(least, most) if kinds else 0
            return tuple(self._call(thread, chance.choice(kinds), chance) for _ in range(number))

        threads = chance.randint(2, self._test.threads)
        most = self._test.operations
        return Program(
            seed,
            some(BEFORE, 0, _AROUND, others),
            tuple(some(thread, 1, most, operations) for thread in range(threads)),
            some(AFTER, 0, _AROUND, others),
        )

    def _call(self, thread: int, operation: OperationSpec, chance: Random) -> Call:
        names = operation.sources
        arguments = {name: self._argument_sources[operation.name, name].draw(chance) for name in names}
        return Call(thread, operation.name, arguments)
