"""Raises the errors of commits that the server has refused because of one of their edits.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latchstore.contract.errors import RevisionMismatchError
from latchstore.engine.edits import OtherItemsError
from latchstore.engine.first_entry import IndexIsMissingError, InTheWayError, NothingFoundError
from latchstore.redis.entries import name_of

#: The errors of a commit that does not find its entry.
_NOT_FOUND: dict[bytes, type[Exception]] = {
    b"DUE": InTheWayError,
    b"NONE": NothingFoundError,
    b"UNINDEXED": IndexIsMissingError,
}


def raise_refusal(answer: Sequence[Any]) -> None:
    """Raise the error of an edit that was refused."""
    kind = answer[0]
    if kind == b"KEY":
        raise KeyError(name_of(answer[1]))
    if kind == b"REVISION":
        raise RevisionMismatchError(name_of(answer[1]), int(answer[2]), int(answer[3]))
    if kind in _NOT_FOUND:
        raise _NOT_FOUND[kind]
    if kind == b"ITEMS":
        raise OtherItemsError(name_of(answer[1]))
