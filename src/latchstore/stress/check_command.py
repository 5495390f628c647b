"""The command ``check``: checks recorded histories against a model."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latchstore.stress.edn import EdnError, read_edn
from latchstore.stress.escaping import visible
from latchstore.stress.file_checks import NAMES, NOT_GIVEN, Check, ModelError, check_of
from latchstore.stress.files import read_history
from latchstore.stress.history import History, HistoryError, Operation
from latchstore.stress.linearizability import Progress
from latchstore.stress.report import check_installed, write_report
from latchstore.stress.result import Result
from latchstore.stress.verdict import Verdict
from latchstore.stress.words import READABLE, calls_table, why

#: The exit codes; unreadable takes precedence over invalid, and invalid over unknown.
VALID, INVALID, UNREADABLE, UNKNOWN = 0, 1, 2, 3
_EXIT_CODES = {"valid": VALID, "invalid": INVALID, "unknown": UNKNOWN}

#: The default time limit per file, in seconds.
_SECONDS = 60.0

_PAGE = "docs/how-to/checking-histories.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Check recorded histories, of this or other programs, for linearizability: whether there is an "
        "order of the operations, each between its call and its return, that a model allows."
    )
    parser.epilog = (
        "Exit codes: 0 all valid, 1 one is invalid, 2 one cannot be read, or wrong usage, 3 one is unknown. "
        f"The formats and how to write a model: {_PAGE}."
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a log of Jepsen, EDN, JSON, CSV, or a history of latchstore; also compressed by gzip",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help=f"one of {', '.join(NAMES)}; or module:Name of a model or its class",
    )
    parser.add_argument(
        "--initial",
        type=_edn,
        default=NOT_GIVEN,
        metavar="VALUE",
        help="what is there at the beginning, in EDN, such as 0; default: nil, or no values",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_SECONDS,
        metavar="N",
        help="time limit per file, after which the verdict is unknown; default: %(default)g",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write an HTML report of the first file that is invalid (needs the extra)",
    )


@dataclass(frozen=True)
class _Checked:
    """A history with its verdict, and the operations that show why it is invalid."""

    path: str
    history: History
    verdict: Verdict
    seconds: float
    shown: Sequence[Operation] = ()


def run(arguments: argparse.Namespace) -> int:
    """Check the files; return the exit code."""
    try:
        check = check_of(arguments.model, arguments.initial)
        if arguments.report:
            check_installed()
    except (ModelError, ModuleNotFoundError) as error:
        print(f"latchstore check: error: {error}", file=sys.stderr)
        return UNREADABLE
    codes = [0]
    reported = not arguments.report
    for path in arguments.files:
        try:
            checked = _checked(path, check, arguments)
        except (HistoryError, OSError) as error:
            print(f"latchstore check: error: {visible(str(error))}", file=sys.stderr)
            codes.append(UNREADABLE)
            continue
        print(json.dumps(_as_json(checked)) if arguments.json else visible(_as_text(checked)))
        codes.append(_EXIT_CODES[checked.verdict.answer])
        if checked.verdict.answer == "invalid" and not reported:
            reported = True
            _report(checked, arguments)
    if UNREADABLE in codes:
        print(f"latchstore check: the formats, and how to convert others: {_PAGE}", file=sys.stderr)
    return next(code for code in (UNREADABLE, INVALID, UNKNOWN, VALID) if code in codes)


def check_file(path: str, model: str, seconds: float | None = None) -> Verdict:
    """Check one history.

    Parameters
    ----------
    path : str
        A file in one of the formats of `latchstore.stress.files`.
    model : str
        In the form of ``--model``.
    seconds : float, optional
        Time limit, after which the verdict is unknown; None: no limit.

    Raises
    ------
    HistoryError
        If the file is not a history, or the model does not have its operations.
    OSError
        If the file cannot be read.
    ModelError
        If there is no such model.
    """
    return check_of(model).verdict(read_history(path), seconds)


def _checked(path: str, check: Check, arguments: argparse.Namespace) -> _Checked:
    begun = time.perf_counter()
    history = read_history(path)
    with _Screen(path, quiet=arguments.json) as screen:
        try:
            verdict = check.verdict(history, arguments.seconds, screen.show)
            seconds = time.perf_counter() - begun
            shown: Sequence[Operation] = ()
            if verdict.answer == "invalid":
                shown, verdict = check.smallest(history, verdict)
        except HistoryError as error:
            raise HistoryError(f"{path}: {error}") from error
        except KeyboardInterrupt:
            seconds = time.perf_counter() - begun
            screen.erase()
            print(f"{path}: unknown: interrupted after {seconds:.1f} s{screen.latest}", file=sys.stderr)
            raise
    return _Checked(path, history, verdict, seconds, shown)


# -- output -------------------------------------------------------------------------------------------------


def _as_text(checked: _Checked) -> str:
    count, shown = len(checked.history.operations), checked.shown
    lines = [f"{checked.path}: {checked.verdict} ({count:,} operations, {checked.seconds:.3f} s)"]
    if shown and checked.verdict.explanation is None:
        number = {id(each): place for place, each in enumerate(checked.history.operations, 1)}
        lines += ["", "these operations, by their numbers in the history:"]
        lines += [*(f"  {number[id(each)]:,}: {each}" for each in shown), ""]
    elif shown:
        which = (
            "the operations" if len(shown) == count else f"{len(shown):,} operations that no order explains"
        )
        left_out = len(shown) - READABLE
        if left_out > 0:
            which = f"the last {READABLE} of {which}"
        lines += ["", f"{which}, in time order:", calls_table(shown[-READABLE:])]
        if checked.verdict.explanation is not None:
            lines += ["", why(checked.verdict.explanation), ""]
    return "\n".join(lines)


def _as_json(checked: _Checked) -> dict[str, Any]:
    verdict = checked.verdict
    told: dict[str, Any] = {"file": checked.path, "answer": verdict.answer, "reason": verdict.reason}
    told["operations"] = len(checked.history.operations)
    told["seconds"] = round(checked.seconds, 6)
    if checked.shown:
        told["smallest"] = [str(each) for each in checked.shown]
    if verdict.explanation is not None:
        told["order"] = [str(each) for each in verdict.explanation.order]
        told["state"] = next(iter(verdict.explanation.states[-1:]), None)
    return told


def _report(checked: _Checked, arguments: argparse.Namespace) -> None:
    command = shlex.join(["python", "-m", "latchstore", "check", checked.path, "--model", arguments.model])
    result = Result(
        command,
        History(
            checked.shown[-READABLE:], {**checked.history.header, "overlapped": checked.history.overlapped}
        ),
        {arguments.model: {"linearizability": checked.verdict}},
        seconds=checked.seconds,
    )
    write_report(result, arguments.report)


class _Screen:
    """A progress line on standard error, if that is a terminal, for checks that take long."""

    def __init__(self, path: str, quiet: bool) -> None:
        self._path = path
        self._shown = not quiet and sys.stderr.isatty()
        self._begun = time.monotonic()
        self._next = self._begun + 1.0
        #: The progress, for a message.
        self.latest = ""

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self.erase()

    def erase(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, state: Progress) -> None:
        """Redraw the line, at most four times a second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 0.25
        order = f"the longest order has {state.explained:,} of {state.calls:,} operations"
        self.latest = f": {state.steps:,} steps; {order}"
        if state.parts > 1:
            self.latest += f"; other keys without an answer: {state.parts - 1:,}"
        if self._shown:
            text = f"{now - self._begun:4.0f} s{self.latest}; {self._path}"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)


# -- arguments ----------------------------------------------------------------------------------------------


def _edn(text: str) -> Any:
    try:
        (value,) = read_edn(text)
    except (EdnError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"must be one value in EDN, such as 0 or '\"text\"', got {text!r}"
        ) from error
    return value


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return seconds
