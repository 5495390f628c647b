"""The interface between the publication of commits and copies of entries in the memory of this process.

An observer is notified of each commit that its process learns of, including its own, before any listener or
watch. It receives the keys only. Publications also report times before which everything is known: without
such a report, an observer does not know how old its copies are.

Thread safety: any thread may call any method, also in sections of a publication. They acquire no lock and do
not raise; each may be repeated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol


class CommitObserver(Protocol):
    """An object that is notified of commits; held by a weak reference.

    Attributes
    ----------
    interval : float
        The seconds after which it needs the next `proved`.
    """

    @property
    def interval(self) -> float: ...

    def changed(self, keys: Iterable[str]) -> None:
        """Record that a visible commit has set or deleted these keys."""

    def lost(self) -> None:
        """Record that any key may have changed: commits were skipped, or are no longer available."""

    def proved(self, time: float) -> None:
        """Record that it was notified of all commits before a time, in monotonic seconds."""

    def renew_in_child(self) -> None:
        """Reset, in a forked child, before any other call."""


class Observable(Protocol):
    """An object that notifies observers of commits."""

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of all commits from now on."""

    def unobserve(self, observer: CommitObserver) -> None:
        """Stop notifying an observer; acquires no lock."""


class Observers:
    """The observers of one publication."""

    __slots__ = ("_references",)

    def __init__(self) -> None:
        # By identity, which a later observer may have again; changed by single dict operations.
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
        """Stop notifying an observer; do nothing if it was not added."""
        self._references.pop(id(observer), None)

    def interval(self, default: float) -> float:
        """Return the seconds until the next check for commits: at most `default`."""
        return min([default, *(each.interval for each in self)])

    def changed(self, keys: Iterable[str]) -> None:
        """Notify all observers; see `CommitObserver.changed`."""
        if self._references:
            keys = list(keys)
            for each in self:
                each.changed(keys)

    def lost(self) -> None:
        """Notify all observers."""
        for each in self:
            each.lost()

    def proved(self, time: float) -> None:
        """Notify all observers."""
        for each in self:
            each.proved(time)

    def renew_in_child(self) -> None:
        """Reset all observers."""
        for each in self:
            each.renew_in_child()
