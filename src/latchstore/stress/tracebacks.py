"""Exceptions of the code under test, told without the frames of the harness.

Thread safety: the functions keep nothing.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from latchstore.stress.result import Problem, ProblemKind

_HARNESS = str(Path(__file__).parent)


def raised(kind: ProblemKind, during: str, error: BaseException | None = None) -> Problem:
    """Return an exception, by default that which is handled, as a problem.

    Parameters
    ----------
    kind : str
        That of the problem.
    during : str
        What was being done.
    error : BaseException, optional
    """
    error = error or sys.exception()
    assert error is not None
    frames = "".join(traceback.format_list(frames_of(error)))
    text = "".join(traceback.format_exception_only(error))
    return Problem(kind, f"{during}: {summary_of(error)}\n{frames}{text}")


def summary_of(error: BaseException) -> str:
    """Return the class and the message of an exception, in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")


def frames_of(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an exception but for those of the harness; all if there are no others."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(_HARNESS)] or list(frames)


def origin_of(error: BaseException) -> str:
    """Return where in code that is not the harness an exception comes from; empty if that is nowhere."""
    frame = frames_of(error)[-1]
    if frame.filename.startswith(_HARNESS):
        return ""
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}"
