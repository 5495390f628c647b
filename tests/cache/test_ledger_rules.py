"""What the ledger reckons with, one rule at a time, where threads would meet it by chance only."""

from __future__ import annotations

import contextlib

import pytest

from latchstore import Cache
from latchstore.cache.ledger import Facts, Ledger, Reservation, Room
from latchstore.cache.policies import LRU
from tests.cache.clocks import check


class Undone(Exception):
    """Rolls a block back."""


def facts(revision: int = 1, weight: int = 1) -> Facts:
    return Facts(revision, weight, None, None, None)


def ledger_with(*keys: str, max_entries: int) -> Ledger:
    ledger = Ledger({}, LRU(), max_entries, None)
    for key in keys:
        assert ledger.settle(key, facts(), ledger.stamp_of(key), 0.0)
    return ledger


def opened(ledger: Ledger, optimistic: bool = False) -> Room:
    room = Room()
    room.optimistic = optimistic
    ledger.open(room)
    return room


def claim(ledger: Ledger, room: Room, key: str, absent: bool = False) -> str | None:
    """Have a transaction set a key; return what it is to evict."""
    node = ledger.claim(room, key, 1, False, 0, None, absent)
    return None if node is None else node.key


def evict(ledger: Ledger, room: Room, gone: str, key: str) -> str | None:
    ledger.note_evicted(room, gone, 1, "size")
    node = ledger.choose(room, key)
    return None if node is None else node.key


def reserves(ledger: Ledger, key: str) -> bool:
    return ledger.reserve(Reservation(key, 1), False)


def test_what_was_read_before_another_settled_is_refused() -> None:
    ledger = ledger_with("a", max_entries=2)
    stamp = ledger.stamp_of("a")
    assert ledger.settle("a", facts(2), stamp, 0.0)
    assert not ledger.settle("a", None, stamp, 0.0)
    assert ledger.nodes["a"].revision == 2


def test_who_replaces_needs_no_room_and_who_adds_does() -> None:
    ledger = ledger_with("a", max_entries=2)
    assert reserves(ledger, "a")
    assert reserves(ledger, "b")
    assert reserves(ledger, "b")  # however many write it, it will be one entry
    assert not reserves(ledger, "c")


def test_what_is_deleted_while_somebody_replaces_it_leaves_no_room() -> None:
    ledger = ledger_with("a", max_entries=1)
    assert reserves(ledger, "a")
    assert ledger.settle("a", None, ledger.stamp_of("a"), 0.0)
    assert not reserves(ledger, "b")


def test_what_is_being_written_is_not_evicted() -> None:
    ledger = ledger_with("a", max_entries=1)
    assert reserves(ledger, "a")
    room = opened(ledger)
    assert claim(ledger, room, "b") is None
    assert not room.fits
    assert room.may_fit_soon


def test_what_is_going_to_be_evicted_is_not_replaced_but_set_anew() -> None:
    ledger = ledger_with("a", "b", max_entries=2)
    room = opened(ledger)
    assert claim(ledger, room, "c") == "a"
    assert evict(ledger, room, "a", "c") is None
    assert room.fits
    assert not reserves(ledger, "a")
    assert reserves(ledger, "b")


def test_a_savepoint_may_bring_back_what_was_deleted() -> None:
    """So what was deleted in a block makes room for the block itself alone."""
    ledger = ledger_with("a", max_entries=2)
    room = opened(ledger)
    assert claim(ledger, room, "b") is None
    ledger.note(room, "a", None)
    assert claim(ledger, room, "b") is None
    assert not reserves(ledger, "c")
    assert claim(ledger, room, "d") is None
    assert room.fits


def test_while_somebody_waits_for_room_nobody_overtakes() -> None:
    ledger = ledger_with("a", max_entries=2)
    ledger.waiting[object()] = None
    assert not reserves(ledger, "a")
    ledger.waiting.clear()
    assert reserves(ledger, "a")


def test_one_entry_may_be_too_much_and_not_two() -> None:
    ledger = ledger_with("a", max_entries=1)
    assert reserves(ledger, "a")
    first, second = opened(ledger), opened(ledger)
    assert claim(ledger, first, "b") is None
    assert ledger.may_exceed(first, "b")
    assert claim(ledger, second, "c") is None
    assert not ledger.may_exceed(second, "c")


def test_what_two_transactions_take_away_has_gone_once() -> None:
    """The first has committed and not settled; the second finds nothing, and sets it again."""
    ledger = ledger_with("a", max_entries=1)
    first = opened(ledger)
    assert claim(ledger, first, "b") == "a"
    assert evict(ledger, first, "a", "b") is None
    second = opened(ledger)
    assert claim(ledger, second, "a", absent=True) is None
    assert not second.fits


def test_what_is_set_after_it_was_evicted_counts() -> None:
    ledger = ledger_with("a", max_entries=1)
    room = opened(ledger)
    assert claim(ledger, room, "b") == "a"
    assert evict(ledger, room, "a", "b") is None
    # It was committed, and another has set it again, before it is settled.
    assert ledger.settle("a", facts(3), ledger.stamp_of("a"), 0.0)
    assert not reserves(ledger, "c")
    assert not ledger._holds(0, 0)


def test_an_optimistic_transaction_holds_up_nobody() -> None:
    ledger = ledger_with("a", max_entries=1)
    slow, quick = opened(ledger, optimistic=True), opened(ledger)
    assert claim(ledger, slow, "b") == "a"
    assert evict(ledger, slow, "a", "b") is None
    assert claim(ledger, quick, "c") == "a"
    ledger.close(quick)  # it was rolled back before it did so
    assert ledger.nodes["a"].leaving is slow
    assert ledger.policy.choose() is None
    ledger.close(slow)
    assert ledger.nodes["a"].leaving is None
    assert ledger.policy.choose() is ledger.nodes["a"]


def test_what_others_evict_in_between_is_settled_by_its_revision() -> None:
    ledger = ledger_with("a", max_entries=1)
    room = opened(ledger)
    assert claim(ledger, room, "b") == "a"
    assert evict(ledger, room, "a", "b") is None
    room.committed = True
    assert ledger.settle("a", facts(3), ledger.stamp_of("a"), 0.0)
    ledger.settle_evicted(room)
    assert ledger.nodes["a"].revision == 3


@pytest.mark.parametrize("again", [False, True])
def test_a_savepoint_gives_back_what_was_evicted_after_it(again: bool) -> None:
    with Cache(max_entries=2) as cache:
        cache.set_many({"a": 1, "b": 2})
        with cache.store.transaction():
            with contextlib.suppress(Undone), cache.store.transaction():
                cache["c"] = 3
                raise Undone
            if again:
                cache["c"] = 4
        assert len(cache) == 2
        assert cache.stats()["evictions"]["size"] == again
        check(cache)
