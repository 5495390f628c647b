"""The comparison: sizes, warm-up, and what is told on the way."""

from __future__ import annotations

import pytest

from latchstore.cache_simulation import recording
from latchstore.cache_simulation.contestants import OPTIMUM
from latchstore.cache_simulation.simulation import Size, SizeResult, TraceResult, simulate, size_of
from latchstore.cache_simulation.traces import SimulationError, Trace


def loop(keys: int, requests: int) -> Trace:
    return Trace(f"loop:{keys}", 1, requests, 1.0, 0)


@pytest.mark.parametrize(
    ("text", "keys", "entries"),
    [
        ("500", 7, 500),
        ("1_000", 7, 1_000),
        ("1%", 500, 5),
        ("0.3%", 1_000, 3),
        ("0.1%", 5, 1),
        ("100%", 7, 7),
        ("12.5 %", 80, 10),
    ],
)
def test_a_size_in_entries_or_percent(text: str, keys: int, entries: int) -> None:
    assert size_of(text).of(keys) == entries


@pytest.mark.parametrize("text", ["", "%", "0", "-5", "1.5", "0%", "101%", "nan%", "inf%", "many"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        size_of(text)


def test_each_policy_runs_with_each_size_once() -> None:
    sizes = [Size(percent=100), Size(entries=2), Size(entries=10), Size(percent=20)]
    result = simulate(loop(10, 100), ["lru", "sieve", OPTIMUM], sizes)
    assert (result.name, result.keys, result.counted, result.warm_up) == ("loop:10", 10, 100, 0)
    small, large = result.sizes
    assert (small.entries, small.percent, large.entries, large.percent) == (2, 20, 10, 100)
    assert list(small.hits) == ["lru", "sieve", OPTIMUM]
    assert small.hits["lru"] == 0 < small.hits[OPTIMUM]
    assert large.hits == {"lru": 90, "sieve": 90, OPTIMUM: 90}
    assert result.ratio(large, "lru") == 0.9


@pytest.mark.parametrize("warm_up", [1, 9, 10, 11, 64, 99])
def test_what_warms_up_is_made_but_not_counted(warm_up: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BLOCK", 16)
    result = simulate(loop(10, 100), ["lru", OPTIMUM], [Size(entries=10)], warm_up)
    hits = 100 - max(10, warm_up)
    assert result.sizes[0].hits == {"lru": hits, OPTIMUM: hits}
    assert (result.counted, result.warm_up) == (100 - warm_up, warm_up)


def test_a_warm_up_that_leaves_nothing_to_count() -> None:
    with pytest.raises(
        SimulationError, match=r"^--warm-up must be below the 5 requests of trace 'loop:2', got 5"
    ):
        simulate(loop(2, 5), ["lru"], [Size(entries=1)], 5)


def test_what_is_being_done_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BLOCK", 3)
    told: list[str] = []
    simulate(loop(2, 5), ["lru"], [Size(entries=1)], progress=told.append)
    assert told == [
        "loop:2: 3 requests read",
        "loop:2: 5 requests read",
        "loop:2: lru of 1 entries: 60 %",
        "loop:2: lru of 1 entries: 100 %",
    ]


def test_the_optimum_is_not_the_best_as_nobody_can_have_it() -> None:
    size = SizeResult(1, 10.0, {"lru": 3, "sieve": 5, "s3-fifo": 5, OPTIMUM: 9})
    result = TraceResult("trace", 10, 10, 0, [size])
    assert result.best(size) == {"sieve", "s3-fifo"}
    assert result.best(SizeResult(1, 10.0, {OPTIMUM: 9})) == set()
