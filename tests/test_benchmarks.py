"""The benchmarks' own arithmetic; what they measure is looked at by running them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.comparison import moved
from benchmarks.measure import (
    Answer,
    Figure,
    Ratio,
    Timing,
    exponent,
    figure_list,
    lines_by_size,
    markdown,
    ratio_table,
    size_table,
)
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


def test_a_ratio_is_that_of_rounds_whatever_speed_the_machine_has_in_each() -> None:
    ours, other = [1.0, 2.0, 2.0, 1.0, 1.0], [2.0, 4.0, 4.0, 4.0, 2.0]
    ratio = Ratio.of("", ours, other, "ns", 0.5)
    assert (ratio.ours, ratio.other) == (1.0, 4.0)
    assert ratio.value == 0.5
    assert ratio.met


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


def test_lines_and_tables_by_size() -> None:
    timings = {
        ("get", 10): Timing((1_000.0,)),
        ("get", 1_000): Timing((2_345_678.0,)),
        ("set", 10): Timing((12_345.0,)),
    }
    lines = lines_by_size(timings)
    assert lines == {"get": [(10, 1.0), (1_000, 2_345.678)], "set": [(10, 12.345)]}
    assert size_table("us, by keys", lines, {"exponent": {"get": "1.2", "set": "0.0"}}).splitlines() == [
        "| us, by keys | 10   | 1,000 | exponent |",
        "| ----------- | ---- | ----- | -------- |",
        "| get         | 1    | 2,346 | 1.2      |",
        "| set         | 12.3 |       | 0.0      |",
    ]


def test_names_with_stars_are_code() -> None:
    """Markdown would make emphasis of what stands between two stars."""
    assert markdown(["what", "ns"], [["glob('*a?') / encore glob('*a?'), `f(*x)`", "1"]]).splitlines()[2] == (
        "| `glob('*a?')` / encore `glob('*a?')`, `f(*x)` | 1  |"
    )
    assert figure_list({"glob('a*'), locked": Timing((1.0,))}).endswith(
        "- `glob('a*')`, locked: 1 ns (spread 0%)"
    )


class TestWriting:
    """What ``--write`` leaves in the repository; nothing is measured here."""

    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        readme = tmp_path / "README.md"
        readme.write_text(f"How it is done.\n\n{command._BEGIN}\n\nold report\n")
        monkeypatch.setattr(command, "HERE", tmp_path)
        monkeypatch.setattr(command, "README", readme)
        monkeypatch.setattr(command, "LATEST", tmp_path / "results" / "latest.json")
        return tmp_path

    def run(self, monkeypatch: pytest.MonkeyPatch, median: float, *arguments: str) -> None:
        """Run the command, with a made-up answer."""
        ratio = Ratio("get / other", median, 200.0, "ns", 1.0)
        answer = Answer("the report", [ratio], [Figure("get", median, 0.01, "ns")])
        monkeypatch.setattr(command, "_answers", lambda names, quick: {"locks": answer})
        assert command.main(list(arguments)) == 0

    def test_the_run_is_kept_beside_the_report(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.run(monkeypatch, 100.0, "--write")
        text = (folder / "README.md").read_text()
        assert text.startswith(f"How it is done.\n\n{command._BEGIN}\n")
        assert "the report" in text
        assert "old report" not in text
        run = json.loads((folder / "results" / "latest.json").read_text())
        assert run["figures"] == [
            {"question": "locks", "what": "get", "median": 100.0, "spread": 0.01, "unit": "ns"}
        ]
        assert [(each["what"], each["ratio"], each["met"]) for each in run["ratios"]] == [
            ("get / other", 0.5, True)
        ]

    def test_the_next_run_is_compared_with_it_and_takes_its_place(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        latest = folder / "results" / "latest.json"
        self.run(monkeypatch, 100.0, "--write")
        capsys.readouterr()
        self.run(monkeypatch, 150.0, "--write", "--compare", str(latest))
        assert "| locks    | get    | 100 ns +-0% | 150 ns +-0% | +50%   |" in capsys.readouterr().out
        assert json.loads(latest.read_text())["figures"][0]["median"] == 150.0

    def test_without_it_nothing_is_kept(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.run(monkeypatch, 100.0)
        assert [path.name for path in folder.iterdir()] == ["README.md"]
        assert "old report" in (folder / "README.md").read_text()

    def test_each_figure_has_a_line_and_no_more_digits_than_it_is_worth(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.run(monkeypatch, 123.456789, "--json", str(folder / "run.json"))
        lines = (folder / "run.json").read_text().splitlines()
        (line,) = [line for line in lines if '"what": "get",' in line]
        assert json.loads(line)["median"] == 123.5
