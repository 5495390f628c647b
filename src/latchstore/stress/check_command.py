"""The command ``check``: checks recorded histories against a model."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from latchstore.stress.file_models import CompareAndSetRegister, KeyValue, Register
from latchstore.stress.files import read_history
from latchstore.stress.history import History, HistoryError
from latchstore.stress.linearizability import check_linearizable
from latchstore.stress.models import Model
from latchstore.stress.verdict import Verdict

#: The exit codes; unreadable takes precedence over invalid, and invalid over unknown.
VALID, INVALID, UNREADABLE, UNKNOWN = 0, 1, 2, 3
_EXIT_CODES = {"valid": VALID, "invalid": INVALID, "unknown": UNKNOWN}

#: The default time limit per file, in seconds.
_SECONDS = 60.0

#: Makes the model of a history.
ModelFactory = Callable[[History], Model[Any, Any, Any]]

MODELS: dict[str, ModelFactory] = {
    "register": lambda history: Register(),
    "cas": lambda history: CompareAndSetRegister(),
    "kv": lambda history: KeyValue(each.invocation for each in history.operations),
}


class ModelError(ValueError):
    """There is no such model; the message has the reason."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Check recorded histories, of this or other programs, for linearizability: whether there is an "
        "order of the operations, each between its call and its return, that a model allows."
    )
    parser.epilog = (
        "Exit codes: 0 all valid, 1 one is invalid, 2 one cannot be read, or wrong usage, 3 one is unknown. "
        "The formats and how to write a model: docs/how-to/checking-histories.md."
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a Jepsen log, EDN, or a history of latchstore"
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help=f"one of {', '.join(MODELS)}; or module:Name of a model or its class",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_SECONDS,
        metavar="N",
        help="time limit per file, after which the verdict is unknown; default: %(default)g",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")


def run(arguments: argparse.Namespace) -> int:
    """Check the files; return the exit code."""
    try:
        model_of = _model_factory(arguments.model)
    except ModelError as error:
        print(f"latchstore check: error: {error}", file=sys.stderr)
        return UNREADABLE
    codes = [0]
    for path in arguments.files:
        begun = time.perf_counter()
        try:
            history, verdict = _checked(path, model_of, arguments.seconds)
        except (HistoryError, OSError) as error:
            print(f"latchstore check: error: {error}", file=sys.stderr)
            codes.append(UNREADABLE)
            continue
        seconds = time.perf_counter() - begun
        count = len(history.operations)
        if arguments.json:
            told = {"file": path, "answer": verdict.answer, "reason": verdict.reason}
            print(json.dumps({**told, "operations": count, "seconds": round(seconds, 6)}))
        else:
            print(f"{path}: {verdict} ({count:,} operations, {seconds:.3f} s)")
        codes.append(_EXIT_CODES[verdict.answer])
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
    return _checked(path, _model_factory(model), seconds)[1]


def _checked(path: str, model_of: ModelFactory, seconds: float | None) -> tuple[History, Verdict]:
    history = read_history(path)
    try:
        verdict = check_linearizable(history.operations, model_of(history), budget=None, seconds=seconds)
    except Exception as error:
        raise HistoryError(f"{path}: the model cannot be applied: {error!r}") from error
    return history, verdict


def _model_factory(name: str) -> ModelFactory:
    if name in MODELS:
        return MODELS[name]
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ModelError(f"--model must be one of {', '.join(MODELS)}, or module:Name, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # like ``python -m``: import from the current directory as well
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
        model = found() if isinstance(found, type) else found
    except Exception as error:
        raise ModelError(f"--model {name!r} cannot be imported: {error!r}") from error
    if not hasattr(model, "initial") or not callable(getattr(model, "step", None)):
        raise ModelError(f"--model {name!r} must have an attribute 'initial' and a method 'step'")
    return lambda history: model


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return seconds
