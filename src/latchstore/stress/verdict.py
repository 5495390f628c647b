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
    """

    answer: Answer
    reason: str = ""
    operations: tuple[Operation, ...] = field(default=(), compare=False)
    cycle: tuple[CycleEdge, ...] = ()

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
