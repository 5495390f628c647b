"""The parent of a run's processes: starts, watches, kills, replaces and ends them.

Rules:

1. All processes begin at one word, when each has opened the store; a replacement begins at once. All end at
   one word, when the threads of all have ended, so pending events of each can arrive.
2. The pipe of a process shows its operations whatever happens to it. An operation in progress when it died
   has an unknown outcome.
3. No process outlives the run: the parent kills those that are left, and a process whose parent has ended
   ends itself.

Thread safety: used by one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from latchstore.stress.history import History, Operation
from latchstore.stress.processes.member import run_member
from latchstore.stress.processes.records import DONE, FINISH, FOUND, GO, MARK, READY, Lines, Order
from latchstore.stress.result import Mark, Problem

#: Each run starts new processes, and replaces each one that is killed: forks of a process that has imported
#: the modules start quickly. That process has no thread and no store.
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")

#: Bytes read from a pipe at once.
_AT_ONCE = 2**16

#: Seconds in which all processes must have opened the store, on a busy machine.
_STARTED_IN = 120.0

#: Seconds to wait for a process that was asked for its stacks, or that has closed its pipe.
_STACKS_IN = 5.0

#: Maximum bytes of a process's stacks in a report.
_MOST_STACKS = 8_000

#: Minimum and maximum number of records of all processes between two kills; each operation has one or two.
_BETWEEN_KILLS = (200, 1_000)

#: Maximum seconds between the begin of an operation and the kill meant for it.
_STRIKE_WITHIN = 0.002


def import_once(store: type) -> None:
    """Import the module of a store's class once for the processes of all runs, if it is of this package.

    Other modules may start threads when they are imported, which a fork would lack.
    """
    if _FORKS:
        modules = [run_member.__module__, store.__module__]
        _CONTEXT.set_forkserver_preload([name for name in modules if name.startswith("latchstore.")])


@dataclass(eq=False)
class Member:
    """One process.

    Attributes
    ----------
    number : int
        From 1, unique for each process.
    order : Order
    place : int
        Its place in the run; the replacement of a killed process has the same place.
    """

    number: int
    place: int
    order: Order
    replaces: bool = False
    lines: Lines = field(default_factory=Lines)
    state: str = ""
    found: dict[str, Any] | None = None
    process: Any = None
    output: Connection | None = None
    words: Connection | None = None

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"process {self.number}"

    def start(self) -> None:
        """Start it."""
        self.output, output = _CONTEXT.Pipe(duplex=False)
        words, self.words = _CONTEXT.Pipe(duplex=False)
        self.process = _CONTEXT.Process(
            target=run_member, args=(self.order, output, words), name=self.name, daemon=True
        )
        try:
            self.process.start()
        finally:
            output.close()
            words.close()

    def say(self, word: bytes) -> None:
        """Send a word; the end of the pipe shows a dead process."""
        assert self.words is not None
        try:
            self.words.send_bytes(word)
        except OSError:
            return

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()

    def rest(self) -> bytes:
        """Return the rest of the pipe of an ended process."""
        assert self.output is not None
        os.set_blocking(self.output.fileno(), False)
        data = b""
        while True:
            try:
                more = os.read(self.output.fileno(), _AT_ONCE)
            except BlockingIOError:
                return data  # a forked child of it has the pipe open as well
            if not more:
                return data
            data += more

    def close(self) -> None:
        """End the process, and close its resources."""
        for connection in (self.output, self.words):
            if connection is not None:
                connection.close()
        if self.process is not None:
            if self.process.pid is not None:
                self.kill()
            self.process.close()

    def stacks(self) -> str:
        """Return the end of the stacks that it has written."""
        try:
            return (
                Path(self.order.stacks).read_text(encoding="utf-8", errors="replace")[-_MOST_STACKS:].strip()
            )
        except OSError:
            return ""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Its operations."""
        header = b'{"type": "header", "format": 1}'
        return History.parse([header, *self.lines.records], self.name).operations


class Team:
    """The processes of one run.

    Parameters
    ----------
    orders : sequence of Order
        One for each process.
    hand_over : callable
        Called with the thread numbers of a process, and with the operations of killed processes in its place;
        returns the data that the process needs.
    killing : random.Random or None
        Source of the times of kills; None for no kills.
    timeout : float
        Seconds for the run after all processes have started.

    Attributes
    ----------
    marks : list of Mark
        The injected faults.
    problems : list of Problem
        Problems: a process that died or hangs, or an error of one of its threads.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        hand_over: Callable[[range, Sequence[Sequence[Operation]]], dict[str, Any]],
        killing: random.Random | None = None,
        timeout: float = 300.0,
    ) -> None:
        self._members = [Member(place + 1, place, order) for place, order in enumerate(orders)]
        self._hand_over = hand_over
        self._killing = killing
        self._timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._begun = False
        # The number of records at which the next process is killed.
        self._next_kill = inf
        self._records = 0
        self._deadline = inf
        self._end = inf
        self.marks: list[Mark] = []
        self.problems: list[Problem] = []

    def run(self) -> None:
        """Start all processes, and wait until they have ended."""
        self._deadline = time.monotonic() + max(_STARTED_IN, self._timeout)
        try:
            for member in self._members:
                self._start(member)
            while not self.problems and any(each.state != "ended" for each in self._members):
                self._go_on()
        finally:
            for member in self._members:
                member.close()
            self._selector.close()

    def operations(self) -> Iterator[Operation]:
        """Return the operations of all processes."""
        for member in self._members:
            yield from member.operations

    def found(self) -> list[dict[str, Any]]:
        """Return the findings of the workloads in each process that was not killed."""
        return [
            {
                "threads": [threads_of(each.order).start, threads_of(each.order).stop],
                "replaces": each.replaces,
                "facts": each.found,
            }
            for each in self._members
            if each.found is not None
        ]

    # -- what happens -----------------------------------------------------------------------------

    def _start(self, member: Member) -> None:
        member.state = "starts"
        member.start()
        assert member.output is not None
        self._selector.register(member.output.fileno(), selectors.EVENT_READ, member)

    def _go_on(self) -> None:
        """Read what processes have written; kill one when it is time."""
        now = time.monotonic()
        if now >= self._deadline:
            self._report_hang()
            return
        for key, _ in self._selector.select(self._deadline - now):
            member: Member = key.data
            data = os.read(key.fd, _AT_ONCE)
            self._take(member, data)
            if not data:
                self._selector.unregister(key.fd)
                self._note_death(member)
        self._kill_one()

    def _take(self, member: Member, data: bytes) -> None:
        self._records += data.count(b"\n")
        for kind, content in member.lines.add(data):
            if kind == READY:
                member.state = "ready"
                self._begin(member)
            elif kind == MARK:
                self.marks.append(Mark(*content))
            elif kind == DONE:
                member.state = "done"
                if content is not None:
                    self.problems.append(Problem(content[0], f"{member.name}: {content[1]}"))
                self._finish()
            elif kind == FOUND:
                member.state, member.found = "found", content

    def _begin(self, member: Member) -> None:
        ready = [each for each in self._members if each.state == "ready"]
        if self._begun:
            ready = [member]  # a replacement of a killed process
            self._plan_kill()
        elif len(ready) < len(self._members):
            return
        else:
            self._begun = True
            self._deadline = time.monotonic() + self._timeout
            self._end = self._seconds_end()
            self._plan_kill()
        for each in ready:
            each.state = "works"
            each.say(GO)

    def _seconds_end(self) -> float:
        seconds = self._members[0].order.seconds
        return inf if seconds is None else time.monotonic() + seconds

    def _finish(self) -> None:
        alive = [each for each in self._members if each.state not in ("ended", "killed")]
        if all(each.state == "done" for each in alive):
            for each in alive:
                each.state = "finishes"
                each.say(FINISH)

    def _note_death(self, member: Member) -> None:
        """Handle a process that has closed its pipe."""
        member.process.join(_STACKS_IN)
        code = member.process.exitcode
        if member.state == "found" and code == 0:
            member.state = "ended"
            return
        if self.problems:
            return
        ended = "has closed its pipe" if code is None else f"has ended with {_told(code)}"
        self.problems.append(Problem("crash", f"{member.name} {ended}\n{member.stacks()}".rstrip()))

    def _report_hang(self) -> None:
        """Make the processes that have not ended write their stacks."""
        stuck = [each for each in self._members if each.state not in ("ended", "done")]
        for member in stuck:
            if member.process.is_alive():
                _ask_for_stacks(member)
        told = "\n".join(f"{each.name} ({each.state}):\n{each.stacks()}" for each in stuck)
        what = f"after {self._timeout:g} s these have not ended" if self._begun else "these do not start"
        self.problems.append(Problem("hang", f"{what}:\n{told}"))

    # -- kills ------------------------------------------------------------------------------------

    def _plan_kill(self) -> None:
        if self._killing is not None:
            self._next_kill = self._records + self._killing.randrange(*_BETWEEN_KILLS)

    def _kill_one(self) -> None:
        """Kill a process in the middle of an operation and start its replacement, if it is time."""
        if self._records < self._next_kill or self._killing is None:
            return
        victims = [each for each in self._members if each.state == "works" and each.lines.in_call]
        if not victims:
            return
        victim = self._killing.choice(victims)
        time.sleep(self._killing.uniform(0.0, _STRIKE_WITHIN))
        self.marks.append(Mark(time.monotonic_ns(), f"kill {victim.name}"))
        victim.kill()
        assert victim.output is not None
        self._selector.unregister(victim.output.fileno())
        victim.state = "killed"
        self._next_kill = inf
        self._take_rest(victim)

    def _take_rest(self, victim: Member) -> None:
        """Replace a killed process, unless all of its operations were done."""
        victim.state = "ended"
        done_before = False
        for kind, content in victim.lines.add(victim.rest()):
            if kind == MARK:
                self.marks.append(Mark(*content))
            elif kind == DONE and content is None:
                done_before = True
            elif kind == DONE:
                self.problems.append(Problem(content[0], f"{victim.name}: {content[1]}"))
        operations = victim.operations
        begun = Counter(each.thread for each in operations)
        order = victim.order
        left = [max(0, length - begun[order.first + place]) for place, length in enumerate(order.lengths)]
        if done_before or not any(left) or time.monotonic() >= self._end:
            self._finish()
            return
        first = max(threads_of(each.order).stop for each in self._members)
        following = replace(
            order,
            first=first,
            lengths=left,
            handed=self._hand_over(range(first, first + len(left)), self._before(victim.place, len(left))),
            seconds=None if order.seconds is None else self._end - time.monotonic(),
            stacks=f"{order.stacks}+",
        )
        member = Member(len(self._members) + 1, victim.place, following, replaces=True)
        self._members.append(member)
        self._start(member)

    def _before(self, place: int, threads: int) -> list[list[Operation]]:
        """Return the operations of each thread of a place, those of killed processes included."""
        done: list[list[Operation]] = [[] for _ in range(threads)]
        for member in self._members:
            if member.place == place:
                for operation in member.operations:
                    done[(operation.thread - member.order.first) % threads].append(operation)
        return done


def threads_of(order: Order) -> range:
    """Return the numbers of a process's threads."""
    return range(order.first, order.first + len(order.lengths))


def _ask_for_stacks(member: Member) -> None:
    """Make a process write its stacks; it answers the signal even if no thread of it gets the GIL."""
    path = Path(member.order.stacks)
    os.kill(member.process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + _STACKS_IN
    size = -1
    while time.monotonic() < deadline:
        now = path.stat().st_size if path.exists() else 0
        if now == size and now > 0:
            return
        size = now
        member.process.join(0.1)


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
