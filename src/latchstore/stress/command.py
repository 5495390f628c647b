"""The command ``stress``: runs threads against a store, records the results and checks them.

Exit codes: 0 all valid, 1 a violation, 2 bad usage, 3 unknown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latchstore.stress.campaign import Outcome, Progress, carry_out
from latchstore.stress.escaping import visible
from latchstore.stress.factories import PlanError, checked_factory, named_object, shared_stores, store_factory
from latchstore.stress.faults import FAULTS
from latchstore.stress.figures import OperationFigures
from latchstore.stress.junit import write_junit
from latchstore.stress.plan import OUR_STORE, Plan
from latchstore.stress.report import check_installed, write_report
from latchstore.stress.result import Result
from latchstore.stress.schedules import SCHEDULES, ScheduleKind, check_faults
from latchstore.stress.scope import Scope
from latchstore.stress.tracebacks import origin_of, summary_of
from latchstore.stress.words import outcome_text
from latchstore.stress.workloads import WORKLOADS, Workload, supported_by

EXIT_CODES = {"valid": 0, "invalid": 1, "unknown": 3}
BAD_USAGE = 2

#: Errors caused by the arguments of the command or by the test.
_USAGE = (TypeError, ValueError, NotImplementedError, ModuleNotFoundError, OSError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``stress``."""
    names = ", ".join(WORKLOADS)
    parser.description = (
        "Run threads against a store, record every operation, and check from the records whether the store "
        "was correct. By default all workloads run for ten seconds: first in schedules of one thread at a "
        "time, then on native threads."
    )
    parser.epilog = "Exit codes: 0 all valid, 1 a violation, 2 bad usage, 3 unknown."
    parser.add_argument(
        "--test",
        metavar="MODULE:CLASS",
        help="run a subclass of latchstore.stress.Test, for any class; allows --seconds, --schedules, "
        "--seed, --report, --junit, --history and --json",
    )
    parser.add_argument(
        "--schedules", type=_positive, metavar="N", help="with --test: maximum number of schedules"
    )
    parser.add_argument(
        "--store",
        default=OUR_STORE,
        metavar="MODULE:CLASS",
        help="class or function that makes stores, or SharedStores for several processes; sqlite is "
        "latchstore.SqliteStore in a temporary file; default: %(default)s",
    )
    parser.add_argument(
        "--workload", default="all", metavar="NAMES", help=f"comma-separated list, or all (default): {names}"
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="number of processes with native threads, on one store that they can share",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        help="number of threads; default: 3, native 4, exhaustive and each process 2, with tasks 2",
    )
    parser.add_argument(
        "--tasks",
        type=_positive,
        default=0,
        metavar="N",
        help="number of asyncio tasks of each thread, which use latchstore.aio.AsyncStore over the store; "
        "random: in one loop whose order is drawn, native: in loops of asyncio, mixed: both",
    )
    parser.add_argument("--seconds", type=float, help="duration; default: 10 without --ops")
    parser.add_argument("--ops", type=_positive, metavar="N", help="number of operations over all threads")
    parser.add_argument(
        "--length",
        type=_positive,
        metavar="N",
        help="operations of each thread in one round or schedule; default: 4 to 20 in a schedule, more if "
        "they are short, 2 with exhaustive",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of all random choices; default: 0, or that of the test"
    )
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="random, pct: one thread at a time, switched between bytecodes, at random or by priorities. "
        "whole: likewise, but while a thread pauses in an operation, others complete whole operations. "
        "native: threads of the system, switched by the interpreter. mixed: all four (default; with "
        "processes: native). exhaustive: all schedules of one thread at a time with a bounded number of "
        "preemptions",
    )
    parser.add_argument(
        "--within",
        default="",
        metavar="MODULES",
        help="comma-separated list of modules and packages in whose code threads may switch; default: the "
        "top-level packages of the store's classes",
    )
    parser.add_argument(
        "--preemptions",
        type=_not_negative,
        default=1,
        metavar="N",
        help="maximum number of preemptions, with exhaustive; default: %(default)s",
    )
    parser.add_argument(
        "--no-shrink",
        action="store_true",
        help="do not reduce a failing schedule: saves time",
    )
    parser.add_argument(
        "--switch-interval",
        type=float,
        default=1e-6,
        metavar="SECONDS",
        help="switch interval of the interpreter, with native; default: %(default)s",
    )
    parser.add_argument(
        "--faults", default="", metavar="NAMES", help=f"comma-separated list of: {', '.join(FAULTS)}"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="time after which a round counts as hanging, with native; default: %(default)g",
    )
    parser.add_argument("--report", metavar="FILE.html", help="write a report as an HTML page")
    parser.add_argument("--history", metavar="FILE", help="write the last history, or the failing one")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--junit", metavar="FILE.xml", help="write the verdicts as JUnit XML")


def run(arguments: argparse.Namespace) -> int:
    """Run ``stress``; return the exit code."""
    try:
        if arguments.report:
            check_installed()
        return _run_test(arguments) if arguments.test else _run_store(arguments)
    except BrokenPipeError:
        raise  # standard output was closed
    except Exception as error:
        where = origin_of(error)
        if not where and not isinstance(error, _USAGE):
            raise  # a defect of the harness
        # An error of the class under test, or of its factory.
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
        raise PlanError(f"test {arguments.test!r} must be a subclass of latchstore.stress.Test")
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
    """Print a text, write the requested files, and return the exit code."""
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
        raise PlanError(f"--processes {arguments.processes} requires --schedule native, got {schedule}")
    _check_tasks(arguments, schedule)
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
        raise PlanError("give either --seconds or --ops, not both")
    faults = _names(arguments.faults, FAULTS, "--faults") if arguments.faults else []
    # Before the note on skipped workloads: an error is the only line.
    check_faults([FAULTS[name] for name in faults], schedule, arguments.processes, arguments.tasks)
    within = [name.strip() for name in arguments.within.split(",") if name.strip()]
    _check_modules(within)
    all_workloads = arguments.workload == "all"
    names = list(WORKLOADS) if all_workloads else _names(arguments.workload, WORKLOADS, "--workload")
    workloads = [WORKLOADS[name]() for name in names]
    left_out = [workload.name for workload in workloads if not supported(workload)]
    if left_out and not all_workloads:
        raise PlanError(f"store {arguments.store!r} does not support these workloads: {', '.join(left_out)}")
    if left_out:
        print(f"skipped, as the store does not support them: {', '.join(left_out)}", file=sys.stderr)
        workloads = [workload for workload in workloads if workload.name not in left_out]
    if not workloads:
        raise PlanError(f"store {arguments.store!r} supports no workload")
    if arguments.processes > 1:
        workloads = _able(workloads, "several processes", lambda each: each.between_processes, all_workloads)
    if arguments.tasks:
        workloads = _able(workloads, "tasks", lambda each: each.in_tasks, all_workloads)
    workloads = _bearing(workloads, faults, all_workloads)
    return Plan(
        workloads,
        arguments.store,
        arguments.threads or _threads_of(schedule, max(arguments.processes, arguments.tasks)),
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
        arguments.tasks,
    )


def _check_tasks(arguments: argparse.Namespace, schedule: str) -> None:
    if not arguments.tasks:
        return
    if schedule not in ("mixed", "native", "random"):
        raise PlanError(f"--tasks requires --schedule mixed, native or random, got {schedule}")
    if arguments.processes > 1:
        raise PlanError("give either --tasks or --processes, not both")
    importlib.import_module("latchstore.stress.task_crew")  # raises a PlanError if an extra is missing


def _check_modules(names: list[str]) -> None:
    try:
        Scope(modules=names)
    except ImportError as error:
        raise PlanError(f"--within: {error}") from error


def _threads_of(schedule: str, crowd: int) -> int:
    """Return the default number of threads, which is 2 with several processes or tasks."""
    return 2 if crowd > 1 else {"native": 4, "exhaustive": 2}.get(schedule, 3)


def _able(
    workloads: list[Workload], who: str, can: Callable[[Workload], bool], all_workloads: bool
) -> list[Workload]:
    """Return the workloads that several processes, or tasks, can run."""
    left_out = [each.name for each in workloads if not can(each)]
    if left_out and not all_workloads:
        raise PlanError(f"{who} cannot run these workloads: {', '.join(left_out)}")
    if left_out:
        print(f"skipped, as {who} cannot run them: {', '.join(left_out)}", file=sys.stderr)
    return [each for each in workloads if can(each)]


def _bearing(workloads: list[Workload], faults: Sequence[str], all_workloads: bool) -> list[Workload]:
    """Return the workloads that support the faults."""
    left_out = [each.name for each in workloads if set(each.left_out_with).intersection(faults)]
    if not left_out:
        return workloads
    if not all_workloads:
        raise PlanError(f"these workloads do not support --faults {','.join(faults)}: {', '.join(left_out)}")
    print(f"skipped, as they do not support these faults: {', '.join(left_out)}", file=sys.stderr)
    return [each for each in workloads if each.name not in left_out]


def _names(text: str, known: Mapping[str, object], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise PlanError(f"{option} must be one or more of {', '.join(known)}, got {name!r}")
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


# -- output -------------------------------------------------------------------------------------------


class _Screen:
    """A progress line on standard error, if that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, state: Progress) -> None:
        """Redraw the line."""
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
        "not_run": list(outcome.not_run),
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
