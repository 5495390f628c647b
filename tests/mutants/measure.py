"""Have the harness look for each mutant from twenty seeds, and write the table of README.md.

``python -m tests.mutants.measure [NAME ...]`` in the project's directory; takes some minutes. With names it
prints the rows of these mutants alone, and puts them into the table. What is counted is schedules of the
mutant's workload, so a busy machine changes nothing but the time.

``python -m tests.mutants.measure --default [NAME ...]`` runs the default command instead, ten seconds of all
workloads and schedules, one process at a time, and prints in how many of twenty runs each mutant was found.

``python -m tests.mutants.measure --processes [NAME ...]`` has several processes look for the mutants of
`SqliteStore` and `RedisStore`, from fewer seeds, and writes the table of those.

A mutant is found if a checker shows that an answer was wrong, a fault that the store cannot be used after it,
or the harness that a lock was kept, taken in the wrong order or waited for without end. One that raises what
no store may raise has failed by itself, and does not count.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from latchstore.__main__ import main as run_command
from latchstore.stress import campaign
from latchstore.stress.controlled import Laboratory
from latchstore.stress.faults import FAULTS, FaultError
from latchstore.stress.search import Found, Settings, search
from latchstore.stress.strategies import seed_of
from latchstore.stress.workloads import WORKLOADS
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

#: What one process imports for all in which a mutant is looked for.
PRELOADED = [
    "latchstore.stress.command",
    "tests.mutants.catalogue",
    "tests.mutants.redis",
    "tests.mutants.sqlite",
]

#: How many seeds each mutant is looked for from.
SEEDS = 20

#: How many seeds those over processes are looked for from, and operations until one is given up.
PROCESS_SEEDS, PROCESS_OPERATIONS = 3, 5_000

#: Schedules of the mutant's workload after which it is given up.
SCHEDULES = 200

#: Schedules of which those that find a mutant are counted.
RATED = 60

#: Operations that a run of the command has, in all, before a mutant is given up.
OPERATIONS = 13_500

THREADS = 3

#: Seconds after which a run is given up.
TIMEOUT = 900.0

README = Path(__file__).with_name("README.md")

_ROOT = Path(__file__).parents[2]
_HEAD = "| mutant | what it does | workload | found in | median schedules | most |\n"
_PROCESS_HEAD = _HEAD.replace("schedules", "operations")
_LINE = "|---|---|---|---|---|---|\n"


def is_found(result: dict[str, Any]) -> bool:
    """Tell from what the command prints as JSON whether a mutant was found, and has not crashed by itself."""
    if result["answer"] != "invalid":
        return False
    return all(_is_finding(problem) for problem in result["problems"])


def _is_finding(problem: dict[str, Any]) -> bool:
    """Tell whether a problem was found by the harness; a FaultError is what a fault has found itself."""
    return problem["kind"] != "crash" or f": {FaultError.__name__}: " in problem["text"].partition("\n")[0]


def find(factory: str, workload: str, faults: str, seed: int, *words: str) -> dict[str, Any]:
    """Run the command on a factory, ``"module:name"``, in a fork; return what it prints as JSON."""
    given = ["--schedule", "random", "--workload", workload, "--threads", str(THREADS)]
    given += words or ["--ops", str(OPERATIONS)]
    return _find_in_fork(_command(factory, faults, seed, given))


def find_by_default(factory: str, faults: str, seed: int) -> dict[str, Any]:
    """Run the default command, with its seconds of processor time; return what it prints as JSON."""
    return _find_in_fork(_command(factory, faults, seed, []), by_processor=True)


def find_by_processes(
    factory: str, workload: str, faults: str, operations: int, seed: int = 0
) -> dict[str, Any]:
    """Run rounds of two processes of two threads until one fails; return what the command prints as JSON."""
    # Of many short rounds some begin as the mutant needs it. What comes too late is seen in longer ones.
    length = "1500" if workload == "near" else "100"
    words = ["--processes", "2", "--threads", "2", "--length", length, "--workload", workload]
    words += ["--ops", str(operations)]
    return _find_in_fork(_command(factory, faults, seed, words))


def find_in_tasks(
    factory: str, workload: str, faults: str, schedule: str, operations: int, length: int = 60
) -> dict[str, Any]:
    """Run rounds of the tasks of one loop until one fails; return what the command prints as JSON."""
    # In a loop of asyncio's own fewer of them meet.
    words = ["--tasks", "8" if schedule == "native" else "4", "--threads", "1", "--schedule", schedule]
    words += ["--workload", workload, "--length", str(length), "--ops", str(operations)]
    return _find_in_fork(_command(factory, faults, 0, words))


def _find_in_fork(command: list[str], by_processor: bool = False) -> dict[str, Any]:
    """Run the command in a fork, which has what it breaks to itself; return what it prints as JSON."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    # No daemon: it may start processes, which end with it.
    child = context.Process(target=_print_to, args=(theirs, command, by_processor))
    child.start()
    theirs.close()
    try:
        if not ours.poll(TIMEOUT):
            raise TimeoutError(command)
        return _read(command, ours.recv())
    finally:
        ours.close()
        child.kill()
        child.join()


def _print_to(pipe: Connection, command: list[str], by_processor: bool) -> None:
    """Send what the command prints."""
    printed = io.StringIO()
    if by_processor:
        # What else the machine does makes no difference then. Schedules run one thread at a time.
        clock: Any = SimpleNamespace(monotonic=time.process_time, monotonic_ns=time.monotonic_ns)
        vars(campaign)["time"] = clock
    with contextlib.redirect_stdout(printed):
        try:
            run_command(command)
        except BaseException:
            printed.write(traceback.format_exc())
    pipe.send(printed.getvalue())


def _command(factory: str, faults: str, seed: int, words: list[str]) -> list[str]:
    command = ["stress", "--json", "--no-shrink", "--store", factory, "--seed", str(seed), *words]
    return [*command, "--faults", faults] if faults else command


def _read(command: list[str], text: str) -> dict[str, Any]:
    if not text.startswith("{"):
        raise RuntimeError(f"{' '.join(command)}: {text[-2_000:]}")
    found: dict[str, Any] = json.loads(text)
    return found


def _printed(module: str, *words: str) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.stdout or done.stderr


# -- a mutant in a process of its own -----------------------------------------------------------------------


def _schedules_until_found(mutant: Mutant) -> list[int | None]:
    """Return for each seed how many schedules it took; None: it was not found, or it crashed."""
    with _laboratory(mutant) as laboratory:
        searches = [_search(laboratory, mutant, number, SCHEDULES) for number in range(SEEDS)]
    return [schedules if found else None for found, schedules in searches]


def _rate(mutant: Mutant) -> tuple[int, int, float]:
    """Return how many of some schedules found it, their number, and the seconds of all."""
    hits = schedules = 0
    begun = time.process_time()
    with _laboratory(mutant) as laboratory:
        for number in itertools.count():
            found, after = _search(laboratory, mutant, number, RATED - schedules)
            hits, schedules = hits + found, schedules + after
            if schedules >= RATED:
                return hits, schedules, time.process_time() - begun
    raise AssertionError


@contextlib.contextmanager
def _laboratory(mutant: Mutant) -> Iterator[Laboratory]:
    laboratory = Laboratory(mutant, [FAULTS[name] for name in mutant.faults.split(",") if name])
    with laboratory.open():
        yield laboratory


def _search(laboratory: Laboratory, mutant: Mutant, number: int, most: int) -> tuple[bool, int]:
    """Return whether a search found the mutant, and its schedules."""

    def enough(found: Found) -> bool:
        return found.schedules >= most

    settings = Settings("mixed", THREADS, None, seed_of(7, number), shrink=False)
    found = search(laboratory, [WORKLOADS[mutant.workload]()], settings, enough)
    crashed = any(problem.kind == "crash" for problem in found.run.problems)
    return found.run.failed and not crashed, found.schedules


def _row(mutant: Mutant) -> str:
    found: list[int | None] = json.loads(_printed("tests.mutants.measure", "--one", mutant.name))
    killed = sorted(each for each in found if each is not None)
    median = f"{statistics.median(killed):g}" if killed else ""
    most = str(killed[-1]) if killed else ""
    workload = f"{mutant.workload}, with {mutant.faults}" if mutant.faults else mutant.workload
    return f"| {mutant.name} | {mutant.what} | {workload} | {len(killed)} | {median} | {most} |"


def _print_rates(mutants: list[Mutant]) -> None:
    for mutant in mutants:
        hits, schedules, seconds = json.loads(_printed("tests.mutants.measure", "--rate-of", mutant.name))
        each = 1_000 * seconds / schedules
        print(f"{mutant.name}: {mutant.workload}: {hits} of {schedules}, {each:.0f} ms each", flush=True)


def _print_default(mutants: list[Mutant], seeds: int) -> None:
    for mutant in mutants:
        found = [find_by_default(mutant.factory, mutant.faults, seed) for seed in range(1, seeds + 1)]
        seconds = sorted(each["seconds"] for each in found if is_found(each))
        median = f", median {statistics.median(seconds):.1f} s" if seconds else ""
        print(f"{mutant.name}: {len(seconds)} of {seeds}{median}", flush=True)


def _process_row(store: str, mutant: Any) -> str:
    seeds = range(1, PROCESS_SEEDS + 1)
    runs = [
        find_by_processes(mutant.factory, mutant.workload, mutant.faults, PROCESS_OPERATIONS, seed)
        for seed in seeds
    ]
    found = sorted(each["operations"] for each in runs if is_found(each))
    workload = f"{mutant.workload}, with {mutant.faults}" if mutant.faults else mutant.workload
    numbers = f"{statistics.median(found):,.0f} | {found[-1]:,}" if found else " | "
    share = f"{len(found)} of {len(runs)}"
    return f"| {store}: {mutant.name} | {mutant.what} | {workload} | {share} | {numbers} |"


def _write_process_rows(names: list[str]) -> None:
    from tests.mutants.redis import REDIS_MUTANTS
    from tests.mutants.sqlite import SQLITE_MUTANTS

    mutants: dict[str, Any] = {
        f"{store}: {each.name}": each
        for store, all_of_it in (("sqlite", SQLITE_MUTANTS), ("redis", REDIS_MUTANTS))
        for each in all_of_it
    }
    for name, mutant in mutants.items():
        if not names or mutant.name in names or name in names:
            head, marker, rest = README.read_text(encoding="utf-8").partition("<!-- processes -->\n")
            table, _, tail = rest.partition("\n\n")
            rows = {row.split(" | ")[0].removeprefix("| "): row for row in table.splitlines()[2:]}
            rows[name] = _process_row(name.partition(":")[0], mutant)
            print(rows[name], flush=True)
            lines = [_PROCESS_HEAD, _LINE, *(f"{rows[each]}\n" for each in mutants if each in rows)]
            README.write_text(head + marker + "".join(lines) + "\n" + tail, encoding="utf-8")


def _write_rows(mutants: list[Mutant]) -> None:
    head, marker, table = README.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in table.splitlines()[2:]}
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for mutant, row in zip(mutants, executor.map(_row, mutants), strict=True):
            rows[mutant.name] = row
            print(row, flush=True)
            table = "".join(f"{rows[each.name]}\n" for each in MUTANTS if each.name in rows)
            README.write_text(head + marker + _HEAD + _LINE + table, encoding="utf-8")


def main() -> None:
    """Measure the mutants that are named, or all, and write their rows of the table."""
    option, names = ("", sys.argv[1:])
    if names and names[0].startswith("--"):
        option, *names = names
    if option == "--processes":
        _write_process_rows(names)
        return
    seeds = SEEDS
    if names and names[0] == "--seeds":
        seeds, names = int(names[1]), names[2:]
    mutants = [each for each in MUTANTS if not names or each.name in names]
    if option == "--one":
        print(json.dumps(_schedules_until_found(*mutants)))
    elif option == "--rate-of":
        print(json.dumps(_rate(*mutants)))
    elif option == "--rates":
        _print_rates(mutants)
    elif option == "--default":
        _print_default(mutants, seeds)
    else:
        _write_rows(mutants)


if __name__ == "__main__":
    main()
