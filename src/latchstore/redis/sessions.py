"""Sessions: the number of each commit, by which the server knows one that it has made already.

Thread safety: `_idle` is changed by single operations of the list. A session belongs to one call at a time;
one whose call was broken off is not used again.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable


class Session:
    """The numbers of commits that are made one after the other.

    Parameters
    ----------
    name : str

    Attributes
    ----------
    name : bytes
    number : int
        Of the last commit.
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
        Takes back a session whose commit has been answered; one call in C.
    """

    def __init__(self) -> None:
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin without sessions: those of the parent are its own."""
        self.process: str = f"{os.getpid()}.{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._idle: list[Session] = []
        self.give: Callable[[Session], None] = self._idle.append

    def take(self) -> Session:
        """Return a session that nobody else uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return Session(f"{self.process}.{next(self._numbers)}")
