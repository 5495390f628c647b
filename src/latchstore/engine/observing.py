"""The seam between what publishes commits and what has copies of entries in the memory of this process.

An observer is notified of each commit that its process learns of, its own ones included, before any listener
or watch is. It gets the keys alone. When it was last up to date it learns from the times that publications
prove: while none comes, it cannot tell how old its copies are.

Thread safety: all methods may be called by any thread, in sections of a publication as well. They take no
lock and raise nothing; each is repeatable.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol


class CommitObserver(Protocol):
    """What is notified of commits; referred to weakly.

    Attributes
    ----------
    interval : float
        Seconds after which it needs to have a time proved again.
    """

    @property
    def interval(self) -> float: ...

    def changed(self, keys: Iterable[str]) -> None:
        """Note that a commit that can be seen has changed these keys, set or deleted."""

    def lost(self) -> None:
        """Note that any keys may have been changed: commits were passed over, or are not there any more."""

    def proved(self, time: float) -> None:
        """Note that it was notified of all that was committed before a time, in monotonic seconds."""

    def renew_in_child(self) -> None:
        """Begin with nothing, in a forked child, before any other call."""


class Observable(Protocol):
    """What notifies observers of commits."""

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of all commits from now on."""

    def unobserve(self, observer: CommitObserver) -> None:
        """Notify an observer no more; takes no lock."""


class Observers:
    """Those of one publication."""

    __slots__ = ("_references",)

    def __init__(self) -> None:
        # By identity, which another one may have later; changed by single operations of the dict.
        self._references: dict[int, weakref.ref[CommitObserver]] = {}

    def __bool__(self) -> bool:
        return bool(self._references) and any(True for _ in self)

    def __iter__(self) -> Iterator[CommitObserver]:
        references = list(self._references.values())
        return (observer for reference in references if (observer := reference()) is not None)

    def add(self, observer: CommitObserver) -> None:
        """Notify an observer from now on."""
        for identity, reference in list(self._references.items()):
            if reference() is None:
                self._references.pop(identity, None)
        self._references[id(observer)] = weakref.ref(observer)

    def discard(self, observer: CommitObserver) -> None:
        """Notify an observer no more; nothing happens if it is none."""
        self._references.pop(id(observer), None)

    def interval(self, default: float) -> float:
        """Return after how many seconds to look for commits again: `default`, or less."""
        return min([default, *(each.interval for each in self)])

    def changed(self, keys: Iterable[str]) -> None:
        """Notify all, as `CommitObserver.changed` has it; so the others."""
        if self._references:
            keys = list(keys)
            for each in self:
                each.changed(keys)

    def lost(self) -> None:
        """Notify all."""
        for each in self:
            each.lost()

    def proved(self, time: float) -> None:
        """Notify all."""
        for each in self:
            each.proved(time)

    def renew_in_child(self) -> None:
        """Notify all."""
        for each in self:
            each.renew_in_child()
