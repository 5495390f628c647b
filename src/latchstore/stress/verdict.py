"""What a checker says of a history. Only "valid" is good news: "unknown" never counts as passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from latchstore.stress.history import Operation

Answer = Literal["valid", "invalid", "unknown"]


@dataclass(frozen=True, slots=True)
class CycleEdge:
    """One edge of a cycle of dependencies: the one must be before the other, and why."""

    before: str
    after: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How far an order explains what was answered, where no order explains all of it.

    Attributes
    ----------
    order : tuple of Operation
        The longest order of calls that one thread could have made.
    states : tuple of str
        The state before the first of them, and after each; empty if it has none that people could read.
    stuck : Operation or None
        The call that cannot be the next one; None if the final state is what differs.
    expected : str
        What one thread would get there; empty if the model does not tell.
    got : str
        What was answered.
    """

    order: tuple[Operation, ...]
    states: tuple[str, ...]
    stuck: Operation | None
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer and, unless it is "valid", the reason for it, for people to read.

    Attributes
    ----------
    answer : str
        ``"valid"``, ``"invalid"`` or ``"unknown"``.
    reason : str
    operations : tuple of Operation
        Those that the reason is about, the most telling first.
    cycle : tuple of CycleEdge
        The dependencies that contradict each other, if the reason is such a cycle.
    explanation : Explanation or None
        If the reason is that no order explains the operations.
    """

    answer: Answer
    reason: str = ""
    operations: tuple[Operation, ...] = field(default=(), compare=False)
    cycle: tuple[CycleEdge, ...] = ()
    explanation: Explanation | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        """Refuse: whether "unknown" is to count must be said."""
        raise TypeError("a verdict has three answers: ask for .answer")

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}" if self.reason else self.answer


VALID = Verdict("valid")


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst: an invalid one if there is any, else an unknown one, else valid."""
    worst = VALID
    for verdict in verdicts:
        if verdict.answer == "invalid":
            return verdict
        if verdict.answer == "unknown":
            worst = verdict
    return worst
