"""The table, for a terminal, a README and programs; that the figures are right is looked at elsewhere."""

from __future__ import annotations

import json

import pytest

from latchstore.cache_simulation import report
from latchstore.cache_simulation.contestants import OPTIMUM
from latchstore.cache_simulation.simulation import SizeResult, TraceResult

RESULTS = [
    TraceResult(
        "zipf:0.9",
        10_000,
        100_000,
        0,
        [
            SizeResult(10, 0.1, {"sieve": 20_000, "cachetools-lru": 10_000, OPTIMUM: 50_000}),
            SizeResult(1_000, 10.0, {"sieve": 60_000, "cachetools-lru": 60_000, OPTIMUM: 70_000}),
        ],
    ),
    TraceResult(
        "a|\x1b",
        3,
        3,
        5,
        [SizeResult(1, 100 / 3, {"sieve": 1, "cachetools-lru": 2, OPTIMUM: 2})],
    ),
]


def test_plain_text() -> None:
    assert report.plain_text(RESULTS) == (
        "zipf:0.9: hit ratios in % of 100,000 requests, 10,000 keys\n"
        "     entries  sieve  cachetools-lru  belady\n"
        "  10 (0.1 %)  20.00           10.00   50.00\n"
        "1,000 (10 %)  60.00           60.00   70.00\n"
        "\n"
        "a|\x1b: hit ratios in % of 3 requests after 5 warm-up requests, 3 keys\n"
        " entries  sieve  cachetools-lru  belady\n"
        "1 (33 %)  33.33           66.67   66.67"
    )


def test_markdown() -> None:
    assert report.markdown(RESULTS).splitlines() == [
        "| trace | keys | entries | sieve | cachetools-lru | belady |",
        "|---|--:|--:|--:|--:|--:|",
        "| `zipf:0.9` | 10,000 | 10 (0.1 %) | **20.00** | 10.00 | 50.00 |",
        "| `zipf:0.9` | 10,000 | 1,000 (10 %) | **60.00** | **60.00** | 70.00 |",
        "| `a\\|\\x1b` | 3 | 1 (33 %) | 33.33 | **66.67** | 66.67 |",
    ]


def test_json() -> None:
    first, second = json.loads(json.dumps(report.as_json(RESULTS)))
    assert first["sizes"][0] == {
        "entries": 10,
        "percent_of_keys": 0.1,
        "hits": {"sieve": 20_000, "cachetools-lru": 10_000, "belady": 50_000},
        "hit_ratios": {"sieve": 0.2, "cachetools-lru": 0.1, "belady": 0.5},
    }
    del first["sizes"], second["sizes"]
    assert first == {"trace": "zipf:0.9", "keys": 10_000, "requests": 100_000, "warm_up": 0}
    assert second == {"trace": "a|\x1b", "keys": 3, "requests": 8, "warm_up": 5}


def test_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "100")
    report.print_with_rich(RESULTS)
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["10", "(0.1", "%)", "20.00", "10.00", "50.00"] in lines
    assert ["1", "(33", "%)", "33.33", "66.67", "66.67"] in lines
    assert "zipf:0.9: hit ratios in % of 100,000 requests, 10,000 keys" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("percent", "text"), [(0.0999, "0.1 %"), (0.3, "0.3 %"), (33.3, "33 %"), (100, "100 %"), (2.5, "2.5 %")]
)
def test_percentages_have_two_digits(percent: float, text: str) -> None:
    assert report.percent_text(percent) == text
