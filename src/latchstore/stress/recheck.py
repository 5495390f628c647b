"""The command ``recheck``: checks a recorded history again."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

from latchstore.stress.command import BAD_USAGE, EXIT_CODES
from latchstore.stress.history import History, HistoryError
from latchstore.stress.verdict import Verdict, all_of
from latchstore.stress.workloads import WORKLOADS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = "Check a history that 'latchstore stress --history FILE' has written."
    parser.epilog = "Exit codes: 0 all valid, 1 a violation, 2 no such history, 3 unknown."
    parser.add_argument("file", metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Check the file; return the exit code."""
    try:
        verdicts = check_again(arguments.file)
    except (HistoryError, OSError) as error:
        print(f"latchstore recheck: error: {error}", file=sys.stderr)
        return BAD_USAGE
    for workload, checks in verdicts.items():
        for check, verdict in checks.items():
            print(f"{workload}: {check}: {verdict}")
    worst = all_of(verdict for checks in verdicts.values() for verdict in checks.values())
    return EXIT_CODES[worst.answer]


def check_again(path: str | os.PathLike[str]) -> Mapping[str, Mapping[str, Verdict]]:
    """Check a history with the workloads that its header names.

    Returns
    -------
    verdicts : mapping
        By the names of workload and checker.

    Raises
    ------
    HistoryError
        If the file is not a history, or names an unknown workload.
    """
    history = History.read(path)
    names = history.header.get("workloads") or []
    if not names or any(name not in WORKLOADS for name in names):
        known = ", ".join(WORKLOADS)
        raise HistoryError(
            f"{os.fspath(path)}: the workloads of its header must be among {known}, got {names!r}"
        )
    return {name: WORKLOADS[name]().verdicts(history) for name in names}
