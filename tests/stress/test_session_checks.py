"""Sessions that read older values than they may, each caught; and near reads of the bound's edge."""

from __future__ import annotations

from typing import Any

import pytest

from latchstore.stress.history import History, Operation
from latchstore.stress.session_checks import check_sessions
from latchstore.stress.verdict import VALID
from latchstore.stress.workloads.near import BOUNDS, Near

VERSIONS = {"k": ["first", "second", "third"]}

MILLISECOND = 1_000_000


def operations(*steps: tuple[int, str, Any], key: str = "k") -> list[Operation]:
    """Return operations of threads, one after the other; of a write the value is the argument."""
    return [
        Operation(
            thread,
            name,
            key,
            value if name == "set" else None,
            None if name == "set" else value,
            place * 2 * MILLISECOND,
            (place * 2 + 1) * MILLISECOND,
        )
        for place, (thread, name, value) in enumerate(steps)
    ]


def test_threads_may_see_different_ages() -> None:
    seen = operations(
        (1, "get", None), (1, "set", "first"), (2, "get", None), (1, "get", "third"), (2, "get", "second")
    )
    assert check_sessions(seen, VERSIONS) == VALID
    others = operations((1, "get", "third"), key="other")
    assert check_sessions([*seen, *others], {**VERSIONS, "other": ["third"]}) == VALID


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([(1, "set", "second"), (1, "get", "first")], "read your writes"),
        ([(1, "set", "first"), (1, "get", None)], "read your writes"),
        ([(1, "get", "third"), (2, "get", "first"), (1, "get", "second")], "monotonic reads"),
        ([(1, "get", "first"), (1, "get", None)], "monotonic reads"),
        ([(1, "get", "never")], "that no commit has"),
    ],
)
def test_a_session_that_goes_back(steps: list[tuple[int, str, Any]], reason: str) -> None:
    verdict = check_sessions(operations(*steps), VERSIONS)
    assert verdict.answer == "invalid"
    assert reason in verdict.reason


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("late", "answer"), [(-1, "valid"), (0, "valid"), (1, "invalid")])
@pytest.mark.parametrize("name", ["get", "read"])
def test_a_read_may_be_as_late_as_the_bound(bound: int, late: int, answer: str, name: str) -> None:
    """And not at all if it is one in a transaction."""
    key = f"near/{bound}/0"
    end = 10 * MILLISECOND
    begin = end + bound * MILLISECOND + late
    history = History(
        [
            Operation(1, "set", key, "old", None, 0, MILLISECOND),
            Operation(1, "set data", key, "new", None, 2 * MILLISECOND, end),
            Operation(2, name, key, None, "old", begin, begin + MILLISECOND),
        ],
        {"facts": {"near": {"versions": {key: ["old", "new"]}}}},
    )
    verdicts = Near().verdicts(history)
    assert verdicts["no older than the bound"].answer == (answer if name == "get" else "invalid")
    assert verdicts["sessions"] == VALID
