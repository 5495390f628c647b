"""How ``inspect`` and ``top`` end: with their exit code, or with an error on one line."""

from __future__ import annotations

from collections.abc import Callable

from latchstore.contract.errors import StoreError
from latchstore.inspecting.sources import SourceError, explanation
from latchstore.printable import complain

#: The exit code after an error.
FAILED = 2


def ended(command: str, place: str, work: Callable[[], int]) -> int:
    """Do the work of a command; return its exit code, or `FAILED` after an error, which is printed.

    Parameters
    ----------
    command : str
    place : str
        What an error of the system is about.
    work : callable
    """
    try:
        return work()
    except BrokenPipeError:
        raise  # the output was closed: handled as for all commands
    except SourceError as error:
        complain(command, str(error))
    except (OSError, StoreError, TypeError, ValueError) as error:
        complain(command, explanation(error, place))
    return FAILED
