"""Sessions: the numbers of commits, by which the server identifies those that it has made already.

Thread safety: `_idle` is changed by single operations of the list. A session belongs to one call at a time;
it is not used again if the call was interrupted.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable


class Session:
    """The numbers of successive commits.

    Parameters
    ----------
    name : str

    Attributes
    ----------
    name : bytes
    number : int
        Number of the last commit.
    """

    __slots__ = ("name", "number")

    def __init__(self, name: str) -> None:
        self.name: bytes = name.encode()
        self.number: int = 0


class Sessions:
    """The sessions of a process.

    Attributes
    ----------
    give : callable
        Returns a session whose commit has been answered; one call in C.
    """

    def __init__(self) -> None:
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin without sessions: those of the parent belong to it."""
        self.process: str = f"{os.getpid()}.{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._idle: list[Session] = []
        self.give: Callable[[Session], None] = self._idle.append

    def take(self) -> Session:
        """Return a session that no other thread uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return Session(f"{self.process}.{next(self._numbers)}")
