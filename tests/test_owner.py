"""The owner: who may commit, and how long others wait for it."""

from __future__ import annotations

from collections import deque

from latchstore.engine.owner import OWNER, Claim, Ownership, Route


class Block:
    """A block of a transaction, as far as a claim needs one."""


def test_an_owner_that_has_ended_already_is_not_waited_for() -> None:
    # Between the section that has found an owner and the wait, it may end; nobody rings then.
    assert Ownership().wait(None, "set", 5.0, 5.0) == 5.0
    assert Ownership().wait(None, "set", 0.0, 0.0) == 0.0


def test_an_owner_is_waited_for() -> None:
    ownership = Ownership()
    abandoned: deque[Route] = deque()
    block = Block()
    claim = Claim(block, abandoned.append, "theirs")
    claim.thread = None  # type: ignore[assignment]
    ownership.claims[OWNER] = claim
    assert ownership.wait(None, "set", 0.001, 5.0) == 0.0
