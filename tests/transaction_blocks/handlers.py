"""What stands for a signal handler or finalizer, at a chosen place of the calling thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from latchstore import TransactionClosedError


class Handler:
    """Calls something once, at one of the calls and returns that the calling thread makes."""

    def __init__(self, place: int, call: Callable[[], object]) -> None:
        self._left = place
        self._call = call
        self.called = False

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
            self.called = True
            with suppress(TransactionClosedError):  # an inner block is open, or the block has ended
                self._call()
