"""Which leases of loads the open transactions of this process are to end with their commits.

Thread safety: `_all` is changed by single operations of the dict. A `Revocation` is referred to weakly:
nothing but the functions that its transaction is to call at its end keeps it, so it is gone with a
transaction that is freed without an end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from latchstore.engine.tasks import caller

#: Called with a key and the tags of its load; tells whether the load is to be kept out.
Covers = Callable[[str, frozenset[str]], object]


class Revocation:
    """That the leases of some loads are to end with the caller's transaction.

    Parameters
    ----------
    covers : callable
        Function of ours, called with a key and the tags of its load, maybe under locks; tells whether it is
        one of them.

    Attributes
    ----------
    caller : object
        The task, or the thread, whose transaction it is.
    """

    __slots__ = ("__weakref__", "caller", "covers")

    def __init__(self, covers: Covers) -> None:
        self.covers: Covers = covers
        self.caller: object = caller()


class Revocations:
    """Those of the transactions of this process that are open."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: dict[weakref.ref[Revocation], None] = {}

    def add(self, revocation: Revocation) -> None:
        """Have it count from now on."""
        self._all[weakref.ref(revocation)] = None

    def discard(self, revocation: Revocation) -> None:
        """Have it count no more, as its transaction has ended, or its part of that was rolled back."""
        self._all.pop(weakref.ref(revocation), None)

    def of_caller(self) -> list[Covers]:
        """Return what the transaction of the caller revokes."""
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
        """Begin with none, in a forked child: the transactions are the parent's."""
        self._all.clear()
