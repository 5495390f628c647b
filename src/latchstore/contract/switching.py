"""Let threads that compute give up the interpreter sooner while a file is read or written.

Each call of the system or of SQLite releases the interpreter lock. A thread that computes then keeps it for a
switch interval, five milliseconds by default, at each of them: a save of a few thousand rows would wait for
it longer than it works. So the interval is shorter meanwhile, for all threads of the process, as there is
only one. An application that has set a shorter one keeps it; one that it sets meanwhile is lost. A child
that is forked meanwhile has the usual one.

Thread safety: any number of threads may call such functions at the same time. Whoever finds the interval
shortened leaves it alone, so the first of them to begin restores it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: The switch interval meanwhile, in seconds.
INTERVAL = 0.00025

# The application's interval meanwhile, for a child that is forked then: nobody there restores it.
_usual: list[float] = []


def switching_often(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that is called with a short switch interval."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        interval = sys.getswitchinterval()
        if interval <= INTERVAL:
            return function(*args, **kwargs)
        try:
            _usual.append(interval)
            sys.setswitchinterval(INTERVAL)
            return function(*args, **kwargs)
        finally:
            sys.setswitchinterval(interval)
            _usual.clear()

    return call


def _restore_in_child() -> None:
    if _usual:
        sys.setswitchinterval(_usual[0])
        _usual.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_in_child)
