"""Formats exceptions of the code under test without frames of the harness.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from latchstore.stress.result import Problem, ProblemKind

_HARNESS = str(Path(__file__).parent)


def raised(kind: ProblemKind, during: str, error: BaseException | None = None) -> Problem:
    """Return an exception, by default the one being handled, as a problem.

    Parameters
    ----------
    kind : str
        Kind of the problem.
    during : str
        The operation that raised it.
    error : BaseException, optional
    """
    error = error or sys.exception()
    assert error is not None
    frames = "".join(traceback.format_list(frames_of(error)))
    text = "".join(traceback.format_exception_only(error))
    return Problem(kind, f"{during}: {summary_of(error)}\n{frames}{text}")


def summary_of(error: BaseException) -> str:
    """Return the class and the message of an exception, on one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")


def frames_of(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an exception without those of the harness; all if there are no others."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(_HARNESS)] or list(frames)


def origin_of(error: BaseException) -> str:
    """Return where outside the harness an exception comes from; empty if nowhere."""
    frame = frames_of(error)[-1]
    if frame.filename.startswith(_HARNESS):
        return ""
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}"
