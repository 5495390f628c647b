"""One way of calls in a process of its own: ``python -m tests.reentry.process WAY [--contended] ...``.

With ``--call`` one operation is run once, with only these calls in the middle of it, in turn: that is the
command that a failure prints.

Prints a line of JSON for each operation and group of calls: how many calls were made in the middle of it,
how many of them were refused, and what was wrong. The process ends with a traceback of all threads if one of
these takes longer than any wait may; whoever has started it goes on with the next.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.interrupts.operations import OPERATIONS
from tests.interrupts.process import names_of
from tests.reentry.caller import MOST
from tests.reentry.calls import CALLS, GROUPS, SLOW
from tests.reentry.pairs import comes_in, run
from tests.reentry.ways import WAYS

#: Seconds after which what runs is stuck.
WATCHDOG = 150.0

#: Rounds after which each call has come at each place.
ROUNDS = max(map(len, GROUPS.values()))


class Job(NamedTuple):
    """An operation with calls in the middle of it, in turn.

    Attributes
    ----------
    operation : str
    group : str
        Of the calls.
    turn : int
        Which of them comes first.
    """

    operation: str
    group: str
    turn: int


def jobs(operations: list[str], rounds: int, seed: int, groups: Collection[str] = GROUPS) -> Iterator[Job]:
    """Yield what there is to be run: a round has each operation with each group, and a call at each place."""
    for turn in range(rounds):
        job = [
            Job(operation, group, turn)
            for operation in operations
            for group in groups
            if turn < len(GROUPS[group])
        ]
        random.Random(seed + turn).shuffle(job)
        yield from job


def calls_of(job: Job, way: str, contended: bool) -> list[str]:
    """Return the calls of a job, the first one first."""
    names = [*GROUPS[job.group]]
    names = [*names[job.turn :], *names[: job.turn]]
    return [name for name in names if comes_in(name, job.operation, way, contended)]


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description="Call in the middle of calls.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each way is tried")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"at most; all pairs are {ROUNDS}")
    parser.add_argument("--operation", metavar="NAME", help="or a group of them")
    parser.add_argument("--group", choices=GROUPS, metavar="NAME", help="only these calls")
    parser.add_argument("--seed", type=int, default=1, help="for the order")
    return parser


def run_one(options: argparse.Namespace) -> int:
    """Run one operation with some calls; return 1 if anything was wrong."""
    if options.operation not in OPERATIONS:
        sys.exit(f"--call needs the --operation in the middle of which they come, one of: {[*OPERATIONS]}")
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    with ThreadPoolExecutor(1) as other:
        count = run(
            options.operation,
            options.call,
            options.way,
            other,
            contended=options.contended,
            stride=options.stride,
            first=options.first,
            most=options.most,
        )
    faulthandler.cancel_dump_traceback_later()
    print(
        f"{count.made} calls, {count.refused} of them refused, at {count.passed} places",
        *count.wrong,
        sep="\n",
    )
    return bool(count.wrong)


def main() -> None:
    """Do what the words say."""
    reader = parser()
    reader.add_argument("way", choices=WAYS)
    reader.add_argument("--contended", action="store_true")
    reader.add_argument("--begin", type=int, default=0, help="how many jobs are left out")
    reader.add_argument("--call", choices=CALLS, action="append", help="only these, in one operation")
    reader.add_argument("--first", type=int, default=0, help="at which place first, with --call")
    reader.add_argument("--stride", type=int, default=1, help="at each how manieth place, with --call")
    reader.add_argument("--most", type=int, default=MOST, help="how many calls at most, with --call")
    options = reader.parse_args()
    if options.call:
        sys.exit(run_one(options))
    deadline = time.monotonic() + options.seconds
    strides: dict[str, int] = {}
    todo = jobs(
        names_of(options.operation),
        options.rounds,
        options.seed,
        [options.group] if options.group else GROUPS,
    )
    with ThreadPoolExecutor(1) as other:
        for number, job in enumerate(todo):
            if number < options.begin:
                continue
            if time.monotonic() > deadline:
                break
            names = calls_of(job, options.way, options.contended)
            if not names:
                continue
            faulthandler.dump_traceback_later(WATCHDOG, exit=True)
            print(json.dumps({"job": number, "operation": job.operation, "group": job.group}), flush=True)
            most = MOST // 20 if not SLOW.isdisjoint(names) else MOST
            stride = strides.get(job.operation, 1)
            count = run(
                job.operation,
                names,
                options.way,
                other,
                contended=options.contended,
                stride=stride,
                first=job.turn % stride,
                most=most,
            )
            strides[job.operation] = max(stride, count.passed // MOST + 1)
            print(json.dumps([count.made, count.refused, count.wrong]), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
