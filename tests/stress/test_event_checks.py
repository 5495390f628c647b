"""Each guarantee of events has a run that breaks it and no other, and the check names it."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent, StoreTransactionEndEvent
from latchstore.stress.event_checks import HeardEvent, atomic, check_events
from latchstore.stress.verdict import VALID

FIRST = HeardEvent(1, "a", "1", None)
BOTH = HeardEvent(2, "a", "2", "1", 7), HeardEvent(2, "b", "2", None, 7)
GONE = HeardEvent(3, "b", None, "2")

RIGHT: dict[str, Any] = {
    "heard": [FIRST, *BOTH, GONE],
    "commits": {1: ["a"], 2: ["a", "b"], 3: ["b"]},
    "rolled_back": {8},
    "initial": {},
    "final": {"a": "2"},
}


def test_events_that_tell_the_truth() -> None:
    assert check_events(**RIGHT) == VALID
    assert check_events([], {}, (), {"a": "1"}, {"a": "1"}) == VALID


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ordered", {"heard": [*BOTH, FIRST, GONE]}),
        ("unique", {"heard": [FIRST, *BOTH, BOTH[1], GONE]}),
        ("none lost", {"heard": [FIRST, BOTH[0], GONE]}),
        ("none lost", {"heard": [FIRST, *BOTH]}),
        ("none lost", {"heard": [FIRST, *BOTH, GONE, HeardEvent(4, "c", "1", None)]}),
        ("none for rollbacks", {"rolled_back": {7}}),
        ("right old value", {"heard": [FIRST, HeardEvent(2, "a", "2", "0", 7), BOTH[1], GONE]}),
        ("right old value", {"initial": {"b": "0"}}),
        ("replay", {"final": {}}),
        ("replay", {"final": {"a": "2", "b": "2"}}),
    ],
)
def test_what_breaks_a_guarantee_is_named(name: str, wrong: dict[str, Any]) -> None:
    verdict = check_events(**(RIGHT | wrong))
    assert verdict.answer == "invalid"
    assert verdict.reason.startswith(f"{name}: ")


def test_a_commit_that_is_split() -> None:
    # In the order of revisions a commit cannot be split; so the order is broken, too, which is said first.
    heard = [FIRST, BOTH[0], GONE, BOTH[1]]
    assert check_events(**(RIGHT | {"heard": heard})).reason.startswith("ordered: ")
    assert atomic(heard) is not None
    assert atomic(RIGHT["heard"]) is None


def test_the_events_of_a_store() -> None:
    heard: list[HeardEvent] = []
    ended: dict[str, int] = {}

    def note_end(event: Any) -> None:
        ended[event.transaction.notes] = event.transaction.number

    def listener(event: Any) -> None:
        values = [None if each is None else each.bytes for each in (event.value, event.previous)]
        number = None if event.transaction is None else event.transaction.number
        heard.append(HeardEvent(event.revision, event.key, values[0], values[1], number))

    store = DictMemoryStore(EventManager())
    store.event_manager.connect(StoreModificationEvent, listener)
    store.event_manager.connect(StoreTransactionEndEvent, note_end)
    with store:
        store.from_bytes("a", b"1")
        with store.transaction():
            store.from_bytes("a", b"2")
            store.from_bytes("b", b"2")
        transaction = store.transaction("doomed")
        with transaction:
            store.delete("a")
            transaction.doom()
        store.delete("b")
    commits = {1: ["a"], 2: ["a", "b"], 3: ["b"]}
    assert check_events(heard, commits, {ended["doomed"]}, {}, {"a": b"2"}) == VALID
