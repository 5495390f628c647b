"""Strike every operation in every way, and write a table of counts: ``python -m tests.interrupts``.

Each judge runs in a process of its own, with the time or the number of strikes that the options give it.
Progress goes to stderr, the table to stdout. The exit code is 1 if anything was wrong. With ``--write`` this
Python's column of the table in README.md beside this file is replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.interrupts.operations import GROUPS
from tests.interrupts.process import JUDGES, parser
from tests.interrupts.storms import STORMS

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- counts: begin -->\n", "<!-- counts: end -->\n"

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

#: What each judge counted in each group, by version: `rows[judge, group][version]`.
Rows = dict[tuple[str, str], dict[str, str]]


def main() -> None:
    """Run the judges, and write the table."""
    options = _options()
    rows: Rows = {}
    wrong: list[str] = []
    for judge in [options.judge] if options.judge else JUDGES:
        begun = time.monotonic()
        answer = ask(judge, options)
        wrong += answer["wrong"]
        for group in GROUPS:
            if group in answer["groups"]:
                rows[judge, group] = {VERSION: cell(*answer["groups"][group])}
        strikes = sum(struck for struck, _ in answer["groups"].values())
        print(
            f"{judge}: {strikes:,} strikes, {len(answer['wrong'])} wrong, "
            f"{answer['crashes']} crashes of Python, {time.monotonic() - begun:.0f} s",
            file=sys.stderr,
        )
    print(table_of(rows))
    if options.write:
        put_into(README, rows)
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(bool(wrong))


def _options() -> argparse.Namespace:
    reader = parser()
    reader.add_argument("--judge", choices=JUDGES, help="only this one")
    reader.add_argument("--write", action="store_true", help="put the counts into README.md")
    return reader.parse_args()


def ask(judge: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one judge in a process of its own; a number of strikes is shared by the storms."""
    words = ["--seconds", options.seconds, "--stride", options.stride, "--seed", options.seed]
    share = options.strikes if options.judge else -(-options.strikes // (len(STORMS) + 1))
    words += ["--strikes", share]
    if options.operation:
        words += ["--operation", options.operation]
    command = [sys.executable, "-m", "tests.interrupts.process", judge, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        lines: list[str] = []
        shown = 0.0
        for line in process.stderr:
            lines = [*lines[-100:], line]
            if line.startswith("WRONG") or time.monotonic() > shown + 5:
                shown = time.monotonic()
                print(f"{judge}: {line}", end="", file=sys.stderr, flush=True)
        answer = process.stdout.read()
    if process.returncode != 0:
        failure = f"{judge}: the process ended with {process.returncode}: {''.join(lines)[-2_000:]}"
        return {"groups": {}, "wrong": [failure], "crashes": 0}
    return dict(json.loads(answer))


def cell(struck: int, wrong: int) -> str:
    """Return what the table shows of one count."""
    return f"{struck:,}" if wrong == 0 else f"{struck:,}, {wrong} wrong"


def table_of(
    rows: Rows,
    judges: Sequence[str] = JUDGES,
    groups: Iterable[str] = GROUPS,
    heads: str = "| judge | operations |",
) -> str:
    """Return the table: a row for each judge and group, a column for each version, and the sums."""
    versions = sorted({version for cells in rows.values() for version in cells}, key=_number)
    lines = [
        f"{heads} {' | '.join(versions)} |",
        f"|---|---|{'---:|' * len(versions)}",
    ]
    order = [(judge, group) for judge in judges for group in groups if (judge, group) in rows]
    lines += [
        f"| {judge} | {group} | {' | '.join(rows[judge, group].get(each, '') for each in versions)} |"
        for judge, group in order
    ]
    sums = [_sum([rows[row].get(version, "") for row in order]) for version in versions]
    lines.append(f"| all | | {' | '.join(sums)} |")
    return "\n".join(lines)


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _sum(cells: list[str]) -> str:
    struck = wrong = 0
    for each in filter(None, cells):
        number, _, rest = each.replace(", ", " ").partition(" ")
        struck += int(number.replace(",", ""))
        wrong += int(rest.split()[0]) if rest else 0
    return f"{struck:,}, {wrong} wrong"


def rows_of(table: str) -> Rows:
    """Return the rows of a table, sums aside."""
    rows: Rows = {}
    lines = [
        [word.strip() for word in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    if not lines:
        return rows
    versions = lines[0][2:]
    for judge, group, *cells in lines[2:]:
        if judge != "all":
            rows[judge, group] = dict(zip(versions, cells, strict=True))
    return rows


def put_into(page: Path, rows: Rows, *table: Any) -> None:
    """Put this Python's counts into the table of a page, as `table_of` has it; those of others stay."""
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    known = rows_of(old)
    for row, cells in rows.items():
        known[row] = {**known.get(row, {}), **cells}
    page.write_text(f"{before}{BEGIN}\n{table_of(known, *table)}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
