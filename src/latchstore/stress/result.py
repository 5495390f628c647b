"""What a run of the harness has found: all that the command prints and the report draws.

Thread safety: made when the threads of the run have ended; never changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from latchstore.stress.history import History
from latchstore.stress.verdict import Answer, Explanation, Verdict

#: What can go wrong besides the answers of the store.
ProblemKind = Literal["deadlock", "hang", "crash", "lock order", "gil", "blocked", "invariant", "validation"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that no store may do, whatever it answers.

    Attributes
    ----------
    kind : str
        ``"deadlock"``: threads wait for each other. ``"hang"``: they do not end. ``"crash"``: an error that
        no store may raise. ``"lock order"``: locks were taken in orders that can deadlock. ``"gil"``: a
        free-threaded interpreter turned its GIL on during the run. ``"blocked"``: a thread waits for
        something that the scheduler does not control, so nothing is known of the code under test.
        ``"invariant"``, ``"validation"``: those of a `Test` do not hold.
    text : str
        The whole story, of several lines perhaps; a deadlock's is a table of who holds what.
    """

    kind: ProblemKind
    text: str


@dataclass(frozen=True, slots=True)
class Access:
    """What a thread did to something that others may share, at one bytecode of the code under test.

    Attributes
    ----------
    time : int
        When an operation last began or ended before it, on the clock of the run.
    where : str
        Such as ``"memory.py:512 in _write_one"``.
    does : str
        ``"reads"``, ``"writes"``, ``"deletes"``, ``"calls"``, ``"enters"`` or ``"leaves"``.
    text : str
        The source of what it was done to, such as ``"self.items"``.
    ours : bool
        Whether it is code of this package.
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
    """What one thread did in a controlled schedule before another one got its turn.

    Attributes
    ----------
    thread : int
        The number of the thread; those that the store has started follow those of the workload.
    where : str
        Where it was when it had to stop, such as ``"memory.py:512 in _write_one"``.
    text : str
        The line of source there, or what it waited for.
    time : int
        When an operation last began or ended before it had to stop, on the clock of the run.
    accesses : tuple of Access
        What it did in its turn.
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
    """A lock was taken while another was held.

    Attributes
    ----------
    held, taken : str
        The locks, named by where they were made.
    thread : str
        The first thread that did so.
    where : str
        Where it did.
    """

    held: str
    taken: str
    thread: str
    where: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault that was put in, at a time in nanoseconds on the monotonic clock."""

    time: int
    name: str
    thread: int | None = None


@dataclass(frozen=True)
class Result:
    """What a run has found.

    Attributes
    ----------
    command : str
        What replays it in a shell.
    history : History
        Of the whole run, or, of controlled schedules, of the one that failed or was the last; shrunk.
    verdicts : mapping
        By the name of the workload and the name of the checker.
    problems : tuple of Problem
    steps : tuple of Step
        The interleaving, of a controlled schedule.
    lock_edges : tuple of LockEdge
    marks : tuple of Mark
    seconds : float
        How long the run took.
    schedules : int
        How many schedules were run; 1 in native mode.
    met : mapping or None
        How often two operations overlapped, by their names; None if nobody has looked. If none ever did,
        nothing is known of what threads do to each other, and the answer is "unknown".
    switched_within : tuple of str
        The modules in whose code controlled threads were; none if threads of the system ran alone.
    final_state : str
        That of the object, for people; empty if nobody has looked.
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
        """The worst of all answers; a problem of the store is as bad as an invalid history."""
        answers = {verdict.answer for each in self.verdicts.values() for verdict in each.values()}
        if "invalid" in answers or any(problem.kind != "blocked" for problem in self.problems):
            return "invalid"
        if self.problems or "unknown" in answers or not answers or self.never_met:
            return "unknown"
        return "valid"

    @property
    def explanation(self) -> Explanation | None:
        """How far an order explains the answers, if a checker has tried orders and found none."""
        found = (each.explanation for checks in self.verdicts.values() for each in checks.values())
        return next((each for each in found if each is not None), None)

    @property
    def is_sequential(self) -> bool:
        """Whether it failed without any two calls at one time: so one thread alone gets that as well."""
        operations = self.history.operations
        lasting = any(
            one.end is None or other.begin < one.end for one, other in itertools.pairwise(operations)
        )
        schedules = {"lock order", "gil", "deadlock", "hang"}
        return (
            self.answer == "invalid"
            and bool(operations)
            and not lasting
            and not any(problem.kind in schedules for problem in self.problems)
        )

    @property
    def never_met(self) -> bool:
        """Whether no two operations overlapped in the whole run."""
        return self.met is not None and not self.met
