"""The checks of a replay pass what is right and object to what is wrong."""

from __future__ import annotations

import pytest

from tests.event_replay.checks import assert_no_faults, faults_by_check
from tests.event_replay.records import A1, A2, C1, RIGHT, ROLLED_BACK, Heard, State, Written, changed

RIGHT_FINAL: dict[str, State] = {"a": A2, "b": (b"b3", {})}
RIGHT_WRITTEN = [
    Written(
        [b"a1", b"b1", b"b2", b"c1", b"b3"], ["m"], {3: ["a", "b", "c"]}, [None, None, 3, None, None, None]
    )
]


def without(*places: int) -> list[Heard]:
    return [event for place, event in enumerate(RIGHT) if place not in places]


def in_order(*places: int) -> list[Heard]:
    return [RIGHT[place] for place in places]


#: Wrong histories, and the checks that must object to each.
WRONG = {
    "a commit is lost": (without(0), {"missing_revisions", "broken_chains", "wrong_data"}),
    "the last commit is lost": (without(7), {"missing_revisions", "broken_chains"}),
    "one event of a transaction is lost": (without(3), {"broken_chains", "wrong_data", "wrong_transactions"}),
    "an event comes twice in a row": (
        in_order(0, 0, 1, 2, 3, 4, 5, 6, 7),
        {"doubled_events", "broken_chains"},
    ),
    "an event comes again later": (
        in_order(0, 1, 2, 3, 4, 0, 5, 6, 7),
        {"steps_back", "split_commits", "doubled_events", "broken_chains"},
    ),
    "a transaction's event comes twice": (
        in_order(0, 1, 2, 3, 4, 4, 5, 6, 7),
        {"doubled_events", "broken_chains", "wrong_transactions"},
    ),
    "two commits are swapped": (in_order(1, 0, 2, 3, 4, 5, 6, 7), {"steps_back"}),
    "two commits of one key are swapped": (
        in_order(0, 1, 2, 3, 4, 6, 5, 7),
        {"steps_back", "broken_chains"},
    ),
    "a commit is split": (in_order(0, 1, 2, 3, 5, 4, 6, 7), {"steps_back", "split_commits"}),
    "a commit is told as two": (
        [*in_order(0, 1, 2, 3), RIGHT[4]._replace(revision=4), *in_order(5, 6, 7)],
        {"wrong_transactions"},
    ),
    "two commits are told as one": (changed(1, revision=1), {"missing_revisions"}),
    "a commit that never was": (
        [*RIGHT, Heard(7, "d", "set", (ROLLED_BACK, {}), None)],
        {"missing_revisions", "broken_chains", "wrong_data", "rolled_back"},
    ),
    "other data": (changed(6, value=(b"b4", {})), {"broken_chains", "wrong_data"}),
    "other metadata": (changed(2, value=(b"a1", {"mark": "n"})), {"broken_chains", "wrong_data"}),
    "metadata without a mark": (changed(6, value=(b"b3", {"n": 1})), {"broken_chains"}),
    "another action": (changed(6, action="update"), {"broken_chains"}),
    "a wrong previous value": (changed(3, previous=A1), {"broken_chains"}),
    "a rolled back value comes first": (
        [
            *RIGHT[:7],
            Heard(6, "c", "update", (ROLLED_BACK + b"c", {}), C1),
            Heard(6, "c", "delete", None, (ROLLED_BACK + b"c", {})),
        ],
        {"doubled_events", "wrong_data", "rolled_back"},
    ),
}


def test_the_checks_pass_what_is_right() -> None:
    assert_no_faults(faults_by_check(RIGHT, RIGHT_FINAL, 6, RIGHT_WRITTEN))


@pytest.mark.parametrize("wrong", WRONG)
def test_the_checks_object_to_what_is_wrong(wrong: str) -> None:
    heard, objecting = WRONG[wrong]
    faults = faults_by_check(heard, RIGHT_FINAL, 6, RIGHT_WRITTEN)
    assert {check for check, found in faults.items() if found} >= objecting
    with pytest.raises(AssertionError):
        assert_no_faults(faults)


def test_each_check_is_needed() -> None:
    checks = faults_by_check(RIGHT, RIGHT_FINAL, 6, RIGHT_WRITTEN)
    assert set().union(*(objecting for _, objecting in WRONG.values())) == set(checks)
