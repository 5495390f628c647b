"""Revocations: leases of loads that end with the commit of an open transaction of this process.

Thread safety: `_all` is changed by single dict operations. A `Revocation` is referenced weakly: only the
functions that its transaction calls at its end keep it, so it is freed with a transaction that is freed
without being exited.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from latchstore.engine.tasks import caller

#: Called with a key and the tags of its load; returns whether the load is covered.
Covers = Callable[[str, frozenset[str]], object]


class Revocation:
    """Ends the leases of some loads with the caller's transaction.

    Parameters
    ----------
    covers : callable
        Internal function, called with a key and the tags of its load, possibly under locks; returns whether
        the load is one of them.

    Attributes
    ----------
    caller : object
        The task or thread of the transaction.
    """

    __slots__ = ("__weakref__", "caller", "covers")

    def __init__(self, covers: Covers) -> None:
        self.covers: Covers = covers
        self.caller: object = caller()


class Revocations:
    """The revocations of the open transactions of this process."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: dict[weakref.ref[Revocation], None] = {}

    def add(self, revocation: Revocation) -> None:
        """Add a revocation."""
        self._all[weakref.ref(revocation)] = None

    def discard(self, revocation: Revocation) -> None:
        """Remove a revocation, since its transaction has ended or its part was rolled back."""
        self._all.pop(weakref.ref(revocation), None)

    def of_caller(self) -> list[Covers]:
        """Return the revocations of the caller's transaction."""
        if not self._all:
            return []  # hot path: most commits revoke nothing
        me, found = caller(), []
        for reference in list(self._all):
            revocation = reference()
            if revocation is None:
                self._all.pop(reference, None)
            elif revocation.caller is me:
                found.append(revocation.covers)
        return found

    def renew_in_child(self) -> None:
        """Remove all, in a forked child, whose parent has the transactions."""
        self._all.clear()
