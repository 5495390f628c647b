"""The types of a decided commit, as it is in the journal of ``table.py``.

Thread safety: created in a section of the writer, never changed afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from latchstore.contract.values import Change, Entry
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.owner import Claim

#: A decided commit: its changes, one for each key (for several keys only if they are needed one by one);
#: its revision; the claim of its transaction; its queued deliveries; and the `Many` of a commit of
#: several keys. hot path: a plain tuple.
Decided = tuple[Sequence[Change], int, Claim | None, Sequence[Delivery], "Many | None"]

#: The result of edits: the changed keys with their old entries; the new entries; the deleted keys, with
#: the cause if they are evicted.
Revised = tuple[dict[str, Entry | None], dict[str, Entry], dict[str, str | None]]


class Many(NamedTuple):
    """The effect of a commit of several keys.

    Attributes
    ----------
    after : dict
        The new entries.
    deleted : list of str
        The deleted keys.
    gate : Gate
        The gate that is shut while the commit is applied.
    """

    after: dict[str, Entry]
    deleted: list[str]
    gate: Gate


class Gate:
    """The entries before a commit of several keys, for readers of single keys while it is applied.

    Attributes
    ----------
    before : dict
        Each changed key, with its entry before, or None.
    """

    __slots__ = ("before",)

    def __init__(self, before: dict[str, Entry | None]) -> None:
        self.before: dict[str, Entry | None] = before

    def __contains__(self, thread: int) -> bool:
        """Return true: no thread may use an entry that it has read."""
        return True
