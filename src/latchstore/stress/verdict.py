"""What a checker says of a history. Only "valid" is good news: "unknown" never counts as passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Answer = Literal["valid", "invalid", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer and, unless it is "valid", the reason for it, for people to read."""

    answer: Answer
    reason: str = ""

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
