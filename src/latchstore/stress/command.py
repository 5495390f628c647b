"""The command ``stress``: a store is put under stress, and what it answered is checked.

Exit codes: 0 all valid, 1 a violation, 2 bad usage, 3 unknown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latchstore.stress.campaign import (
    OUR_STORE,
    SCHEDULES,
    Outcome,
    Plan,
    Progress,
    ScheduleKind,
    carry_out,
    check_faults,
)
from latchstore.stress.escaping import visible
from latchstore.stress.factories import PlanError, checked_factory, named_object, shared_stores, store_factory
from latchstore.stress.faults import FAULTS
from latchstore.stress.figures import OperationFigures
from latchstore.stress.junit import write_junit
from latchstore.stress.report import check_installed, write_report
from latchstore.stress.result import Result
from latchstore.stress.scope import Scope
from latchstore.stress.tracebacks import origin_of, summary_of
from latchstore.stress.words import outcome_text
from latchstore.stress.workloads import WORKLOADS, Workload, supported_by

EXIT_CODES = {"valid": 0, "invalid": 1, "unknown": 3}
BAD_USAGE = 2

#: What is raised because of how the command or a test was written.
_USAGE = (TypeError, ValueError, NotImplementedError, ModuleNotFoundError, OSError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``stress``."""
    names = ", ".join(WORKLOADS)
    parser.description = (
        "Have threads use a store while everything is written down, and prove from what they saw that the "
        "store was correct, or that it was not. By default all workloads run for ten seconds: in schedules "
        "of one thread at a time, and then on native threads."
    )
    parser.epilog = "Exit codes: 0 all valid, 1 a violation, 2 bad usage, 3 unknown."
    parser.add_argument(
        "--test",
        metavar="MODULE:CLASS",
        help="run a test derived from latchstore.stress.Test, of any class; with it go --seconds, "
        "--schedules, --seed, --report, --junit, --history and --json",
    )
    parser.add_argument("--schedules", type=_positive, metavar="N", help="of --test: how many at the most")
    parser.add_argument(
        "--store",
        default=OUR_STORE,
        metavar="MODULE:CLASS",
        help="a class or a function that makes stores, or what tells how processes share one; sqlite is "
        "latchstore.SqliteStore in a file of its own; default: %(default)s",
    )
    parser.add_argument(
        "--workload", default="all", metavar="NAMES", help=f"a list with commas, or all (default): {names}"
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="so many processes, on one store that says how they share it, with native threads each",
    )
    parser.add_argument(
        "--threads", type=_positive, help="default: 3, of native 4, of exhaustive and of each process 2"
    )
    parser.add_argument("--seconds", type=float, help="how long; default: 10 without --ops")
    parser.add_argument("--ops", type=_positive, metavar="N", help="how many operations, all in all")
    parser.add_argument(
        "--length",
        type=_positive,
        metavar="N",
        help="operations of a thread in one round or schedule; default: of a schedule 4 to 20, more of short "
        "ones; of exhaustive 2",
    )
    parser.add_argument("--seed", type=int, help="default: 0, or what the test has")
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="random, pct: one thread at a time, changed at bytecodes, at random or by priorities. whole: "
        "likewise, and while a thread stops in the middle of an operation others do whole ones. native: "
        "threads of the system, which switch when they like. mixed: all four (default, of processes "
        "native). exhaustive: all "
        "schedules of one thread at a time with a bounded number of preemptions",
    )
    parser.add_argument(
        "--within",
        default="",
        metavar="MODULES",
        help="a list with commas: threads change within the code of these modules and packages; default: the "
        "top-level packages of the store's classes",
    )
    parser.add_argument(
        "--preemptions",
        type=_not_negative,
        default=1,
        metavar="N",
        help="of exhaustive; default: %(default)s",
    )
    parser.add_argument(
        "--no-shrink",
        action="store_true",
        help="leave a schedule that fails as it was found: saves time",
    )
    parser.add_argument(
        "--switch-interval",
        type=float,
        default=1e-6,
        metavar="SECONDS",
        help="of native; default: %(default)s",
    )
    parser.add_argument(
        "--faults", default="", metavar="NAMES", help=f"a list with commas, of: {', '.join(FAULTS)}"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="of native and of processes: after that a round counts as hanging; default: %(default)g",
    )
    parser.add_argument("--report", metavar="FILE.html", help="write a report for a browser")
    parser.add_argument("--history", metavar="FILE", help="write the last history, or the one that failed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--junit", metavar="FILE.xml", help="write the verdicts for a build server")


def run(arguments: argparse.Namespace) -> int:
    """Run ``stress``; return the exit code."""
    try:
        if arguments.report:
            check_installed()
        return _run_test(arguments) if arguments.test else _run_store(arguments)
    except BrokenPipeError:
        raise  # nobody reads on
    except Exception as error:
        where = origin_of(error)
        if not where and not isinstance(error, _USAGE):
            raise  # a defect of the harness
        # One of the class under test, or of what makes it.
        told = f"{summary_of(error)} (at {where})" if where else error
        print(f"latchstore stress: error: {told}", file=sys.stderr)
        return BAD_USAGE


def _run_store(arguments: argparse.Namespace) -> int:
    factory = store_factory(arguments.store)
    if arguments.processes > 1:
        shared_stores(factory, arguments.store)
    checked_factory(factory, ())
    plan = _plan(arguments, lambda workload: supported_by(workload, factory))
    with _Screen(quiet=arguments.json) as screen:
        outcome = carry_out(plan, factory, screen.show)
    text = json.dumps(_as_json(outcome), indent=2) if arguments.json else outcome_text(outcome)
    return _told(arguments, text, outcome.result)


def _run_test(arguments: argparse.Namespace) -> int:
    from latchstore.stress.testing.case import Test
    from latchstore.stress.testing.result import as_json, result_of

    kind = named_object(arguments.test, "test")
    if not (isinstance(kind, type) and issubclass(kind, Test)):
        raise PlanError(f"test {arguments.test!r} must be derived from latchstore.stress.Test")
    with _Screen(quiet=arguments.json) as screen:
        report = kind.run(
            seconds=arguments.seconds,
            schedules=arguments.schedules,
            seed=arguments.seed,
            progress=lambda now: screen.show(Progress(now.seconds, now.calls, now.schedules)),
        )
    text = json.dumps(as_json(report), indent=2) if arguments.json else str(report)
    return _told(arguments, text, result_of(report))


def _told(arguments: argparse.Namespace, text: str, result: Result) -> int:
    """Print a text, write the files that were asked for, and return the exit code."""
    print(visible(text))
    if arguments.history:
        result.history.write(arguments.history)
    if arguments.report:
        write_report(result, arguments.report)
    if arguments.junit:
        write_junit(result, arguments.junit)
    return EXIT_CODES[result.answer]


# -- arguments ----------------------------------------------------------------------------------------


def _plan(arguments: argparse.Namespace, supported: Callable[[Workload], bool]) -> Plan:
    schedule: ScheduleKind = arguments.schedule or ("native" if arguments.processes > 1 else "mixed")
    if arguments.processes > 1 and schedule != "native":
        raise PlanError(f"--processes {arguments.processes} cannot have --schedule {schedule}, only native")
    seconds = arguments.seconds
    if seconds is None and arguments.ops is None and schedule != "exhaustive":
        seconds = 10.0
    if seconds is not None and not seconds > 0:
        raise PlanError(f"--seconds must be above 0, got {seconds:g}")
    if not arguments.switch_interval > 0:
        raise PlanError(f"--switch-interval must be above 0, got {arguments.switch_interval:g}")
    if not arguments.timeout > 0:
        raise PlanError(f"--timeout must be above 0, got {arguments.timeout:g}")
    if seconds is not None and arguments.ops is not None:
        raise PlanError("--seconds and --ops: say one of the two")
    faults = _names(arguments.faults, FAULTS, "--faults") if arguments.faults else []
    # Before it is told which workloads are left out: an error is the only line.
    check_faults([FAULTS[name] for name in faults], schedule, arguments.processes)
    within = [name.strip() for name in arguments.within.split(",") if name.strip()]
    _check_modules(within)
    all_workloads = arguments.workload == "all"
    names = list(WORKLOADS) if all_workloads else _names(arguments.workload, WORKLOADS, "--workload")
    workloads = [WORKLOADS[name]() for name in names]
    left_out = [workload.name for workload in workloads if not supported(workload)]
    if left_out and not all_workloads:
        raise PlanError(
            f"store {arguments.store!r} cannot do what these workloads need: {', '.join(left_out)}"
        )
    if left_out:
        print(f"left out, as the store cannot do what they need: {', '.join(left_out)}", file=sys.stderr)
        workloads = [workload for workload in workloads if workload.name not in left_out]
    if not workloads:
        raise PlanError(f"store {arguments.store!r} can do what no workload needs")
    if arguments.processes > 1:
        workloads = _between_processes(workloads, all_workloads)
    workloads = _bearing(workloads, faults, all_workloads)
    return Plan(
        workloads,
        arguments.store,
        arguments.threads or _threads_of(schedule, arguments.processes),
        seconds,
        arguments.ops,
        arguments.seed or 0,
        schedule,
        arguments.length,
        [FAULTS[name] for name in faults],
        arguments.switch_interval,
        arguments.preemptions,
        not arguments.no_shrink,
        within,
        arguments.processes,
        arguments.timeout,
    )


def _check_modules(names: list[str]) -> None:
    try:
        Scope(modules=names)
    except ImportError as error:
        raise PlanError(f"--within: {error}") from error


def _threads_of(schedule: str, processes: int) -> int:
    """Return how many threads there are if nobody says."""
    return 2 if processes > 1 else {"native": 4, "exhaustive": 2}.get(schedule, 3)


def _between_processes(workloads: list[Workload], all_workloads: bool) -> list[Workload]:
    """Return the workloads that threads of several processes can do."""
    left_out = [each.name for each in workloads if not each.between_processes]
    if left_out and not all_workloads:
        raise PlanError(f"several processes cannot do these workloads: {', '.join(left_out)}")
    if left_out:
        print(f"left out, as several processes cannot do them: {', '.join(left_out)}", file=sys.stderr)
    return [each for each in workloads if each.between_processes]


def _bearing(workloads: list[Workload], faults: Sequence[str], all_workloads: bool) -> list[Workload]:
    """Return the workloads that can be run with the faults."""
    left_out = [each.name for each in workloads if set(each.left_out_with).intersection(faults)]
    if not left_out:
        return workloads
    if not all_workloads:
        raise PlanError(
            f"these workloads cannot be run with --faults {','.join(faults)}: {', '.join(left_out)}"
        )
    print(f"left out, as they cannot be run with these faults: {', '.join(left_out)}", file=sys.stderr)
    return [each for each in workloads if each.name not in left_out]


def _names(text: str, known: Mapping[str, object], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise PlanError(f"{option} must be some of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys(names))


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _not_negative(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    number = int(text.replace("_", ""))
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
    return number


# -- what is printed ----------------------------------------------------------------------------------


class _Screen:
    """One line on stderr that tells how far it is, if that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, state: Progress) -> None:
        """Draw the line anew."""
        if self._shown:
            rate = state.operations / state.seconds if state.seconds else 0
            text = f"{state.seconds:6.1f} s  {state.operations:,} operations checked  {rate:,.0f}/s"
            print(f"\r\x1b[K{text}  {state.rounds:,} rounds", end="", file=sys.stderr, flush=True)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    return {
        "answer": result.answer,
        "command": result.command,
        "seconds": result.seconds,
        "schedules": result.schedules,
        "complete": outcome.complete,
        "operations": outcome.operations,
        "figures": [
            {name: getattr(row, name) for name in OperationFigures.__slots__} for row in outcome.figures
        ],
        "verdicts": {
            workload: {
                check: {"answer": verdict.answer, "reason": verdict.reason}
                for check, verdict in checks.items()
            }
            for workload, checks in result.verdicts.items()
        },
        "switched_within": list(result.switched_within),
        "met": {f"{one} / {other}": count for (one, other), count in sorted((result.met or {}).items())},
        "problems": [{"kind": problem.kind, "text": problem.text} for problem in result.problems],
        "header": result.history.header,
    }
