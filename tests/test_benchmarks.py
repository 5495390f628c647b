"""The benchmarks' own arithmetic; what they measure is looked at by running them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.comparison import moved
from benchmarks.measure import Figure, Ratio, exponent, ratio_table
from benchmarks.peers import LIMIT, OURS, peers
from benchmarks.threads import KEYS, THREADS, Mix


def run_of(**medians: float) -> dict[str, Any]:
    figures = [
        {"question": "operations", "what": what, "median": median, "spread": 0.05, "unit": "ns"}
        for what, median in medians.items()
    ]
    return {"machine": "an old machine", "figures": figures}


def test_what_moved_beyond_the_noise_is_told_and_nothing_else() -> None:
    text = moved(run_of(get=100, set=100, gone=1), run_of(get=150, set=115, new=1))
    assert "2 figures in both" in text
    assert "| operations | get    | 100 ns +-2% | 150 ns +-2% | +50%   |" in text
    assert "set " not in text
    assert "Only in the old run: gone (operations)." in text
    assert "Only in this run: new (operations)." in text


def test_when_nothing_moved_that_is_said() -> None:
    assert moved(run_of(get=100), run_of(get=119)).endswith("Nothing has moved beyond the noise.")


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_the_exponent_is_that_of_the_power_law(power: float) -> None:
    assert exponent([(x, 3 * x**power) for x in (10, 100, 1_000)]) == pytest.approx(power, abs=1e-9)


def test_limits_from_below_and_from_above() -> None:
    assert Ratio("", 2, 1, "", 2.0).met
    assert not Ratio("", 2.1, 1, "", 2.0).met
    assert Ratio("", 2, 1, "", 2.0, at_least=True).met
    assert not Ratio("", 1.9, 1, "", 2.0, at_least=True).met
    assert ">= 2 " in ratio_table([Ratio("", 1, 1, "", 2.0, at_least=True)])


def test_a_figure_has_median_and_spread() -> None:
    figure = Figure.of("x", [1.0, 2.0, 3.0, 4.0, 5.0], "ns")
    assert (figure.median, figure.spread) == (3.0, 1.0)


@pytest.mark.parametrize("name", [OURS, "dict + Lock", "dict + RWLockFair", LIMIT])
def test_peers_set_get_and_delete(name: str) -> None:
    peer = peers()[name]()
    peer.set("key", b"data")
    assert peer.get("key") == b"data"
    peer.delete("key")
    with pytest.raises(KeyError):
        peer.delete("key")


def test_each_thread_has_operations_of_its_own_and_the_mix_is_kept() -> None:
    mix = Mix(KEYS, 90)
    lists = [mix.operations_of(thread) for thread in THREADS]
    assert len({tuple(each) for each in lists}) == len(THREADS)
    reads = sum(read for operations in lists for read, _ in operations)
    assert reads / sum(map(len, lists)) == pytest.approx(0.9, abs=0.02)
    assert all(read for read, _ in Mix(KEYS, 100).operations_of(0))
