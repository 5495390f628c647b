"""Make every call in the middle of every other one, and write a table of counts: ``python -m tests.reentry``.

Each way of making them runs in a process of its own, and in another one beside a thread that reads and
writes. Progress goes to stderr, the table to stdout. The exit code is 1 if anything was wrong. With
``--write`` this Python's column of the table in README.md beside this file is replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interrupts.__main__ import VERSION, Rows, put_into, table_of
from tests.reentry.calls import GROUPS
from tests.reentry.pairs import Count
from tests.reentry.process import parser
from tests.reentry.ways import WAYS

README = Path(__file__).with_name("README.md")

#: What the rows of the table are: the ways, alone and beside another thread.
KINDS = [f"{way}{beside}" for way in WAYS for beside in ("", ", contended")]

TABLE = (KINDS, list(GROUPS), "| called by a | what |")


def main() -> None:
    """Run the ways, and write the table."""
    reader = parser()
    reader.add_argument("--way", choices=KINDS, help="only this one")
    reader.add_argument("--write", action="store_true", help="put the counts into README.md")
    options = reader.parse_args()
    rows: Rows = {}
    wrong: list[str] = []
    for kind in [options.way] if options.way else KINDS:
        begun = time.monotonic()
        counts = dict(_ask(kind, options))
        for group in GROUPS:
            if group in counts:
                rows[kind, group] = {VERSION: _cell(counts[group])}
        found = [each for count in counts.values() for each in count.wrong]
        wrong += found
        made = sum(count.made for count in counts.values())
        print(
            f"{kind}: {made:,} calls, {len(found)} wrong, {time.monotonic() - begun:.0f} s", file=sys.stderr
        )
    print(table_of(rows, *TABLE))
    if options.write:
        put_into(README, rows, *TABLE)
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(bool(wrong))


def _ask(kind: str, options: argparse.Namespace) -> dict[str, Count]:
    """Run one way, in a process of its own, in another one from where the last one was stuck."""
    counts: dict[str, Count] = {}
    deadline = time.monotonic() + options.seconds
    begin = 0
    while begin >= 0 and (left := deadline - time.monotonic()) > 0:
        begin = _ask_one(kind, options, begin, left, counts)
    return counts


def _ask_one(
    kind: str, options: argparse.Namespace, begin: int, seconds: float, counts: dict[str, Count]
) -> int:
    """Run one process; count; return with which job to go on, -1 if all were done."""
    way, _, contended = kind.partition(", contended") if kind.endswith(", contended") else (kind, "", None)
    words = ["--seconds", seconds, "--rounds", options.rounds, "--seed", options.seed, "--begin", begin]
    if contended is not None:
        words.append("--contended")
    if options.operation:
        words += ["--operation", options.operation]
    if options.group:
        words += ["--group", options.group]
    command = [sys.executable, "-W", "ignore", "-m", "tests.reentry.process", way, *map(str, words)]
    job: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for job, result in _pairs(process):
            counts.setdefault(job["group"], Count()).add(Count(*result))
            for each in result[2]:
                print(f"WRONG {each}", file=sys.stderr, flush=True)
        assert process.stderr is not None
        rest = process.stderr.read()
    if process.returncode == 0:
        return -1
    text = f"{kind}: stuck or broken after job {job}: {rest[-3_000:]}"
    counts.setdefault(job.get("group", next(iter(GROUPS))), Count()).wrong.append(text)
    return int(job.get("job", begin)) + 2


def _pairs(process: subprocess.Popen[str]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    assert process.stdout is not None
    for line in process.stdout:
        result = process.stdout.readline()
        if not result:
            return
        yield json.loads(line), json.loads(result)


def _cell(count: Count) -> str:
    wrong = f", {len(count.wrong)} wrong" if count.wrong else ""
    return f"{count.made:,}{wrong}"


if __name__ == "__main__":
    main()
