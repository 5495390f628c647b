"""``python -m latchstore demo [DIR]``: the store in the middle of a pool of threads, with all of it checked.

Writers load every file below a directory. Readers read each file as soon as it is stored, and query for
files of its suffix. A listener counts the files of each suffix from events alone. Then one transaction
gives a new suffix to the most common one, while readers watch. In the end all is held against the disk.

Threads share only what is safe to share: the store, queues, `Check.fail` (one append to a list), and what
has a lock of its own (`SuffixCounter`, `RetagWatch`). The rest is returned from the pool or belongs to one
thread. Each wait ends: with the end of a thread, or with a timeout that makes a check fail.
"""

from __future__ import annotations

import argparse
import os
import sys

from latchstore.delivery.event_manager import EventManager
from latchstore.demo.files import what_to_load, why_unusable
from latchstore.demo.pool import WorkerError, one_line
from latchstore.demo.screen import make_screen
from latchstore.demo.work import Demo
from latchstore.engine.memory import DictMemoryStore
from latchstore.printable import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command understands to its parser."""

    def number(text: str) -> int:  # argparse takes the function's name for its messages
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
        return value

    parser.description = (
        "Load all files below DIR into a store with many threads at once, read, query and change them, "
        "and check the result byte for byte."
    )
    parser.epilog = (
        "Exit codes: 0 all is well, 1 a check failed or a thread broke down, 2 wrong usage, 130 interrupted."
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="what to load (default: Python's standard library)"
    )
    for option, default, purpose in (
        ("--writers", 4, "threads that load files (default: 4)"),
        ("--readers", 2, "threads that read and query (default: 2)"),
        (
            "--max-bytes-per-file",
            64 * 2**20,
            "skip files that are larger than this (default: 67108864, which is 64 MiB)",
        ),
    ):
        parser.add_argument(option, type=number, default=default, metavar="N", help=purpose)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo, print what came out, and return the exit code, as the epilog of the help has it."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except WorkerError as error:
        return _complain(str(error), 1)
    except Exception as error:
        return _complain(one_line(error), 1)


def _run(arguments: argparse.Namespace) -> int:
    root, left_out = what_to_load(arguments.directory)
    problem = why_unusable(root)
    if problem:
        return _complain(f"{root}: {problem}", 2)
    screen = make_screen()
    without = f" (without {' and '.join(sorted(left_out))})" if left_out else ""
    screen.say(f"Loading {root}{without}")
    with DictMemoryStore(EventManager(), indexes=["suffix"]) as store:
        report = Demo(store, arguments, screen).run(root, left_out)
    screen.show(report)
    return 1 if report.failed else 0


def _complain(message: str, exit_code: int) -> int:
    print(f"latchstore demo: {printable(message, sys.stderr)}", file=sys.stderr)
    return exit_code
