"""The result of a run of the harness: everything that the command prints and the report shows.

Thread safety: made after the threads of the run have ended; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from latchstore.stress.history import History
from latchstore.stress.verdict import Answer, Explanation, Verdict

#: The kinds of problems other than wrong answers of the store.
ProblemKind = Literal["deadlock", "hang", "crash", "lock order", "gil", "blocked", "invariant", "validation"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem other than a wrong answer.

    Attributes
    ----------
    kind : str
        ``"deadlock"``: threads wait for each other. ``"hang"``: they do not end. ``"crash"``: an error that
        no store may raise. ``"lock order"``: locks were acquired in orders that can deadlock. ``"gil"``: a
        free-threaded interpreter enabled its GIL during the run. ``"blocked"``: a thread waits for something
        outside the scheduler's control, so the run proves nothing. ``"invariant"``, ``"validation"``: those
        of a `Test` do not hold.
    text : str
        The description, which may have several lines; for a deadlock a table of held locks and waits.
    """

    kind: ProblemKind
    text: str


@dataclass(frozen=True, slots=True)
class Access:
    """An access of a thread to possibly shared state, at one bytecode of the code under test.

    Attributes
    ----------
    time : int
        Time of the last begin or end of an operation before it, on the clock of the run.
    where : str
        For example ``"memory.py:512 in _write_one"``.
    does : str
        ``"reads"``, ``"writes"``, ``"deletes"``, ``"calls"``, ``"enters"`` or ``"leaves"``.
    text : str
        The source of the accessed expression, such as ``"self.items"``.
    ours : bool
        Whether the code is of this package.
    """

    time: int
    where: str
    does: str
    text: str
    ours: bool = False

    def __str__(self) -> str:
        return f"{self.does} {self.text}"


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a thread in a controlled schedule.

    Attributes
    ----------
    thread : int
        The number of the thread; threads that the store started follow those of the workload.
    where : str
        Where it lost its turn, such as ``"memory.py:512 in _write_one"``.
    text : str
        The line of source there, or the object that it waited for.
    time : int
        Time of the last begin or end of an operation before it lost its turn, on the clock of the run.
    accesses : tuple of Access
        The accesses of its turn.
    ours : bool
        Whether it was in code of this package.
    """

    thread: int
    where: str
    text: str
    time: int = 0
    accesses: tuple[Access, ...] = ()
    ours: bool = False


@dataclass(frozen=True, slots=True)
class LockEdge:
    """A lock was acquired while another was held.

    Attributes
    ----------
    held, taken : str
        The locks, by the place where they were made.
    thread : str
        The first thread that did so.
    where : str
        The place where it did.
    """

    held: str
    taken: str
    thread: str
    where: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An injected fault, with its time in nanoseconds on the monotonic clock."""

    time: int
    name: str
    thread: int | None = None


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes
    ----------
    command : str
        The shell command that repeats it.
    history : History
        Of the whole run; with controlled schedules, of the reduced failing one, or of the last one.
    verdicts : mapping
        By the names of workload and checker.
    problems : tuple of Problem
    steps : tuple of Step
        The interleaving of a controlled schedule.
    lock_edges : tuple of LockEdge
    marks : tuple of Mark
    seconds : float
        Duration of the run.
    schedules : int
        Number of schedules; 1 in native mode.
    met : mapping or None
        How often two operations overlapped, by their names; None if that was not counted. If none overlapped,
        nothing is proved about concurrent use, and the answer is "unknown".
    switched_within : tuple of str
        The modules in whose code controlled threads were; empty if only threads of the system ran.
    final_state : str
        The final state of the object, for reports; empty if it was not read.
    """

    command: str
    history: History
    verdicts: Mapping[str, Mapping[str, Verdict]]
    problems: tuple[Problem, ...] = ()
    steps: tuple[Step, ...] = ()
    lock_edges: tuple[LockEdge, ...] = ()
    marks: tuple[Mark, ...] = ()
    seconds: float = 0.0
    schedules: int = field(default=1)
    met: Mapping[tuple[str, str], int] | None = None
    switched_within: tuple[str, ...] = ()
    final_state: str = ""

    @property
    def answer(self) -> Answer:
        """The worst of all answers; a problem counts like an invalid history."""
        answers = {verdict.answer for each in self.verdicts.values() for verdict in each.values()}
        if "invalid" in answers or any(problem.kind != "blocked" for problem in self.problems):
            return "invalid"
        if self.problems or "unknown" in answers or not answers or self.never_met:
            return "unknown"
        return "valid"

    @property
    def explanation(self) -> Explanation | None:
        """The longest order that explains the answers, if a checker searched for an order and found none."""
        found = (each.explanation for checks in self.verdicts.values() for each in checks.values())
        return next((each for each in found if each is not None), None)

    @property
    def is_sequential(self) -> bool:
        """Whether it failed without overlapping calls, so that a single thread gets the failure as well.

        A history that was reduced tells in its header whether calls that were left out overlapped.
        """
        history = self.history
        schedules = {"lock order", "gil", "deadlock", "hang"}
        return (
            self.answer == "invalid"
            and bool(history.operations)
            and not history.header.get("overlapped", history.overlapped)
            and not any(problem.kind in schedules for problem in self.problems)
        )

    @property
    def never_met(self) -> bool:
        """Whether no two operations overlapped in the whole run."""
        return self.met is not None and not self.met
