"""Have the harness look for each mutant from twenty seeds, and write the table of README.md.

``python -m tests.mutants.measure [NAME ...]`` in the project's directory; takes some minutes. With names it
prints the rows of these mutants alone, and puts them into the table.

``python -m tests.mutants.measure --default [NAME ...]`` runs the default command instead, ten seconds of all
workloads and schedules, one process at a time, and prints in how many of twenty runs each mutant was found.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

#: Blocks of seeds; the schedules of one block have seeds from its first on.
BLOCKS = 20

#: Schedules that a block has.
SCHEDULES = 1_500

#: Threads and operations of each thread, in one schedule.
THREADS, LENGTH = 3, 3

#: Seconds after which a run is given up.
TIMEOUT = 300.0

README = Path(__file__).with_name("README.md")

_ROOT = Path(__file__).parents[2]
_HEAD = "| mutant | what it does | workload | found in | median schedules | most |\n"
_LINE = "|---|---|---|---|---|---|\n"


def find(factory: str, workload: str, faults: str, block: int, schedules: int = SCHEDULES) -> dict[str, Any]:
    """Run the harness on a factory, ``"module:name"``; return what it prints as JSON."""
    words = [
        "--schedule",
        "random",
        "--workload",
        workload,
        "--threads",
        str(THREADS),
        "--length",
        str(LENGTH),
    ]
    words += ["--ops", str(schedules * THREADS * LENGTH)]
    return _run(factory, faults, block * SCHEDULES, words)


def find_by_default(factory: str, faults: str, seed: int) -> dict[str, Any]:
    """Run the default command; return what it prints as JSON."""
    return _run(factory, faults, seed, [])


def _run(factory: str, faults: str, seed: int, words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "latchstore", "stress", "--json", "--no-shrink", "--store", factory]
    command += ["--seed", str(seed), *words, *(["--faults", faults] if faults else [])]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=_ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"{factory}, seed {seed}: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _row(mutant: Mutant) -> str:
    def found_in(block: int) -> dict[str, Any]:
        return find(mutant.factory, mutant.workload, mutant.faults, block)

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        found = list(executor.map(found_in, range(BLOCKS)))
    killed = sorted(each["schedules"] for each in found if each["answer"] == "invalid")
    median = f"{statistics.median(killed):g}" if killed else ""
    most = str(killed[-1]) if killed else ""
    workload = f"{mutant.workload}, with {mutant.faults}" if mutant.faults else mutant.workload
    return f"| {mutant.name} | {mutant.what} | {workload} | {len(killed)} | {median} | {most} |"


def _print_default(wanted: list[str]) -> None:
    for mutant in MUTANTS:
        if not wanted or mutant.name in wanted:
            found = [find_by_default(mutant.factory, mutant.faults, seed) for seed in range(1, BLOCKS + 1)]
            seconds = sorted(each["seconds"] for each in found if each["answer"] == "invalid")
            median = f", median {statistics.median(seconds):.1f} s" if seconds else ""
            print(f"{mutant.name}: {len(seconds)} of {len(found)}{median}", flush=True)


def main() -> None:
    """Measure the mutants that are named, or all, and write their rows of the table."""
    wanted = sys.argv[1:]
    if wanted[:1] == ["--default"]:
        _print_default(wanted[1:])
        return
    head, marker, table = README.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in table.splitlines()[2:]}
    for measured in MUTANTS:
        if not wanted or measured.name in wanted:
            rows[measured.name] = _row(measured)
            print(rows[measured.name], flush=True)
            table = "".join(f"{rows[mutant.name]}\n" for mutant in MUTANTS if mutant.name in rows)
            README.write_text(head + marker + _HEAD + _LINE + table, encoding="utf-8")


if __name__ == "__main__":
    main()
