"""Verdicts of checkers. Only "valid" means success: "unknown" never counts as passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from latchstore.stress.history import Operation

Answer = Literal["valid", "invalid", "unknown"]


@dataclass(frozen=True, slots=True)
class CycleEdge:
    """One edge of a cycle of dependencies: two operations, and why the first must precede the second."""

    before: str
    after: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The longest order that explains answers, if no order explains all of them.

    Attributes
    ----------
    order : tuple of Operation
        The longest order of calls that the sequential specification allows.
    states : tuple of str
        The state before the first of them, and after each; empty if it has no readable form.
    stuck : Operation or None
        The call that cannot be next; None if only the final state differs.
    expected : str
        The result that the specification requires there; empty if the model does not provide it.
    got : str
        The actual result.
    """

    order: tuple[Operation, ...]
    states: tuple[str, ...]
    stuck: Operation | None
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer and, unless it is "valid", a readable reason.

    Attributes
    ----------
    answer : str
        ``"valid"``, ``"invalid"`` or ``"unknown"``.
    reason : str
    operations : tuple of Operation
        The operations of the reason, the most important first.
    cycle : tuple of CycleEdge
        The contradicting dependencies, if the reason is a cycle.
    explanation : Explanation or None
        Set if the reason is that no order explains the operations.
    """

    answer: Answer
    reason: str = ""
    operations: tuple[Operation, ...] = field(default=(), compare=False)
    cycle: tuple[CycleEdge, ...] = ()
    explanation: Explanation | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        """Raise TypeError: code must decide explicitly how "unknown" counts."""
        raise TypeError("a verdict has three answers, so it has no truth value: use .answer")

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}" if self.reason else self.answer


VALID = Verdict("valid")


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict: invalid before unknown before valid."""
    worst = VALID
    for verdict in verdicts:
        if verdict.answer == "invalid":
            return verdict
        if verdict.answer == "unknown":
            worst = verdict
    return worst
