"""One judge in a process of its own: ``python -m tests.interrupts.process JUDGE [--seconds S] ...``.

Prints what it has counted as JSON: for each group of operations how many exceptions there were, and after how
many of them something was wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tests.interrupts.dispatching import delivering, strike_dispatcher
from tests.interrupts.exhaustion import STRIDE, Count, exhaust, recurse
from tests.interrupts.helper import helper
from tests.interrupts.limits import WRITERS, fill_in_child
from tests.interrupts.operations import GROUPS, OPERATIONS, group_of
from tests.interrupts.shortage import SHORT_OF_MEMORY, starve, starve_in_children
from tests.interrupts.storms import STORMS, storm, stormed

#: How many strikes one store gets in a storm, and how many seconds at most: then everything is compared.
STRIKES = 300
SECONDS = 3.0

#: What waits near the recursion limit waits for threads that may not have begun, and what closes for its end.
NOT_DEEP = ("waiting", "wait", "close")

#: How many requests for memory in a row fail.
FAILURES = (1, 2)

#: And how many more of those of the thread that calls listeners.
MORE_FAILURES = (10, 50)

Progress = Callable[[str], None]

T = TypeVar("T")


class Tally:
    """What a judge has counted, by groups of operations.

    Parameters
    ----------
    tell : callable
        Is given a line of text now and then.
    """

    def __init__(self, tell: Progress) -> None:
        self.groups: dict[str, Count] = {}
        self.crashes = 0
        self._tell = tell

    @property
    def struck(self) -> int:
        """How many exceptions there were."""
        return sum(count.struck for count in self.groups.values())

    def add(self, name: str, count: Count) -> None:
        """Count what was counted of one operation."""
        self.groups.setdefault(group_of(name), Count()).add(count)
        for wrong in count.wrong:
            self._tell(f"WRONG {wrong}")
        wrongs = sum(len(each.wrong) for each in self.groups.values())
        self._tell(f"{self.struck:,} strikes, {wrongs} wrong; {name}")

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "groups": {group: [count.struck, len(count.wrong)] for group, count in self.groups.items()},
            "wrong": [wrong for count in self.groups.values() for wrong in count.wrong],
            "crashes": self.crashes,
        }


def run(judge: str, names: list[str], tally: Tally, options: argparse.Namespace) -> None:
    """Have a judge strike operations."""
    if judge in STORMS:
        run_storm(judge, stormed(judge, names), tally, options)
    elif judge == "dispatcher":
        if "emit" in names:
            run_dispatcher(tally, options)
    elif judge == "limit":
        run_limits(names, tally, options)
    elif judge == "memory":
        for name in _of(names, SHORT_OF_MEMORY):
            for failures in FAILURES:
                count, crashes = starve(name, failures, options.stride)
                tally.crashes += crashes
                tally.add(name, count)
        for failures in (*FAILURES, *MORE_FAILURES) if "emit" in names else ():
            count, crashes = starve_in_children("emit", delivering, failures, options.stride)
            tally.crashes += crashes
            tally.add("emit", count)
    else:
        with ThreadPoolExecutor(1) as other:
            for name in names:
                if judge == "striker":
                    tally.add(name, exhaust(name, other, options.stride))
                elif not name.startswith(NOT_DEEP):
                    tally.add(name, recurse(name, other, options.stride))


def run_storm(judge: str, names: list[str], tally: Tally, options: argparse.Namespace) -> None:
    """Storm one operation after the other, over and over, until there are enough strikes or time is up."""
    if not names:
        return
    helper()
    chance = random.Random(options.seed)
    deadline = time.monotonic() + options.seconds
    for name in _again_and_again(names):
        left = options.strikes - tally.struck
        if left <= 0 or time.monotonic() >= deadline:
            return
        share = min(STRIKES, -(-options.strikes // len(names)), left)
        tally.add(name, storm(judge, name, share, min(deadline, time.monotonic() + SECONDS), chance))


def run_dispatcher(tally: Tally, options: argparse.Namespace) -> None:
    """Strike the threads that call the listeners of one store after the other."""
    chance = random.Random(options.seed)
    deadline = time.monotonic() + options.seconds
    while (left := options.strikes - tally.struck) > 0 and time.monotonic() < deadline:
        share = min(deadline, time.monotonic() + SECONDS)
        tally.add("emit", strike_dispatcher(min(left, STRIKES), share, chance))


def run_limits(names: list[str], tally: Tally, options: argparse.Namespace) -> None:
    """Fill stores in each way, and again until there are enough failures or time is up."""
    deadline, seed = time.monotonic() + options.seconds, options.seed
    for number, (way, (_, _, name)) in enumerate(_again_and_again(list(WRITERS.items()))):
        over = tally.struck >= options.strikes or time.monotonic() >= deadline
        if over and number >= len(WRITERS):
            return
        if name in names:
            count, crashed = fill_in_child(way, seed + number)
            tally.crashes += crashed
            tally.add(name, count)


def _again_and_again(names: list[T]) -> Iterator[T]:
    while True:
        yield from names


def _of(names: list[str], known: list[str]) -> list[str]:
    return [name for name in names if name in known]


JUDGES = ("striker", *STORMS, "dispatcher", "memory", "limit", "recursion")


def names_of(operation: str | None) -> list[str]:
    """Return the operations of a name or of a group; all of them if None."""
    if operation is None:
        return list(OPERATIONS)
    return [operation] if operation in OPERATIONS else list(GROUPS[operation])


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description="Strike operations wherever CPython raises.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a storm lasts")
    parser.add_argument(
        "--strikes", type=int, default=10_000_000, help="how many strikes a storm has at most"
    )
    parser.add_argument("--stride", type=int, default=STRIDE, help="of how many places one is struck")
    parser.add_argument(
        "--operation", choices=[*GROUPS, *OPERATIONS], metavar="NAME", help="or a group of them"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="when storms strike")
    return parser


def main() -> None:
    """Do what the words say."""
    reader = parser()
    reader.add_argument("judge", choices=JUDGES)
    options = reader.parse_args()
    # Without a lock. Until Python 3.13 an exception may leave that of a handler taken: loggers wait.
    log = logging.getLogger("latchstore")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    # Written in C: these are called where strikes fall.
    threading.excepthook = id
    sys.unraisablehook = id
    # One line for a program that shows it.
    tally = Tally(lambda line: print(line, file=sys.stderr, flush=True))
    run(options.judge, names_of(options.operation), tally, options)
    print(json.dumps(tally.as_dict()), flush=True)


if __name__ == "__main__":
    main()
