"""Have the harness look for each mutant from twenty seeds, and write the table of README.md.

``python -m tests.mutants.measure [NAME ...]`` in the project's directory; takes some minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutants.catalogue import MUTANTS, Mutant

#: Blocks of seeds; the schedules of one block have seeds from its first on.
BLOCKS = 20

#: Schedules that a block has.
SCHEDULES = 1_500

#: Threads and operations of each thread, in one schedule.
THREADS, LENGTH = 3, 3

#: Seconds after which a run is given up.
TIMEOUT = 300.0

README = Path(__file__).with_name("README.md")


def find(directory: Path, mutant: Mutant, block: int, schedules: int = SCHEDULES) -> dict[str, Any]:
    """Run the harness on a mutant that was written to a directory; return what it prints as JSON."""
    command = [sys.executable, "-m", "latchstore", "stress", "--json", "--schedule", "random"]
    command += ["--workload", mutant.workload, "--threads", str(THREADS), "--length", str(LENGTH)]
    command += ["--seed", str(block * SCHEDULES), "--ops", str(schedules * THREADS * LENGTH)]
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"{mutant.name}, block {block}: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _row(mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        mutant.write(directory)
        with ThreadPoolExecutor(os.cpu_count()) as executor:
            found = list(executor.map(lambda block: find(directory, mutant, block), range(BLOCKS)))
    killed = sorted(each["schedules"] for each in found if each["answer"] == "invalid")
    median = f"{statistics.median(killed):g}" if killed else ""
    most = str(killed[-1]) if killed else ""
    return f"| {mutant.name} | {mutant.what} | {mutant.workload} | {len(killed)} | {median} | {most} |"


def main() -> None:
    """Measure the mutants that are named, or all and write the table."""
    wanted = sys.argv[1:]
    rows = []
    for mutant in MUTANTS:
        if not wanted or mutant.name in wanted:
            rows.append(_row(mutant))
            print(rows[-1], flush=True)
    if not wanted:
        head, marker, _ = README.read_text(encoding="utf-8").partition("<!-- measured -->\n")
        table = "| mutant | what it does | workload | found in | median schedules | most |\n"
        table += "|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
        README.write_text(head + marker + table, encoding="utf-8")


if __name__ == "__main__":
    main()
