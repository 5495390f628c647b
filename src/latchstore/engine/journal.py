"""What a commit is once it is decided: what the journal of ``table.py`` has.

Thread safety: made in a section of the writer, never changed after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from latchstore.contract.values import Change, Entry
from latchstore.delivery.dispatcher import Delivery
from latchstore.engine.owner import Claim

#: A commit that is decided: its changes, one for each key (of several keys only if somebody needs them
#: one by one); its revision; the claim of the transaction that makes it; what is queued to have it
#: heard; and what becomes of several keys, if it has them. hot path: a plain tuple.
Decided = tuple[Sequence[Change], int, Claim | None, Sequence[Delivery], "Many | None"]

#: What edits come to: the keys that change with the entries there were; the new entries; the keys that go,
#: with the cause if they are evicted.
Revised = tuple[dict[str, Entry | None], dict[str, Entry], dict[str, str | None]]


class Many(NamedTuple):
    """What a commit of several keys makes of the entries.

    Attributes
    ----------
    after : dict
        The new entries.
    deleted : list of str
        The keys that go.
    gate : Gate
        What is shut while it is applied.
    """

    after: dict[str, Entry]
    deleted: list[str]
    gate: Gate


class Gate:
    """What stood there before a commit of several keys, for those who read single keys meanwhile.

    Attributes
    ----------
    before : dict
        Each key that changes, with its entry before, or None.
    """

    __slots__ = ("before",)

    def __init__(self, before: dict[str, Entry | None]) -> None:
        self.before: dict[str, Entry | None] = before

    def __contains__(self, thread: int) -> bool:
        """Return true: no thread may take what it has read."""
        return True
