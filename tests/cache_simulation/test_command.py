"""The command: what it takes, what it prints, and what it says when something is wrong."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main
from latchstore.cache.policies import POLICIES
from latchstore.cache_simulation import command
from latchstore.cache_simulation.contestants import NAMES, why_missing

#: Runs the command on these arguments: exit code, standard output, standard error.
Run = Callable[..., tuple[int, str, str]]

FEW = ("--keys", 50, "--requests", 500)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["cache-sim", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def ratios(run: Run, *arguments: object) -> dict[str, Any]:
    """The hit ratios of the only size of the only trace."""
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    (trace,) = json.loads(out)["traces"]
    (size,) = trace["sizes"]
    found: dict[str, Any] = size["hit_ratios"]
    return found


class TestTables:
    def test_all_that_is_installed_is_compared_and_what_is_not_is_named(self, run: Run) -> None:
        code, out, err = run("zipf:0.9", "loop:20", *FEW, "--sizes", "5, 50%")
        assert code == 0
        lines = out.splitlines()
        installed = [name for name in NAMES if why_missing(name) is None]
        assert lines[1].split() == ["entries", *installed]
        assert lines[0] == "zipf:0.9: hit ratios in % of 500 requests, 50 keys"
        assert "loop:20: hit ratios in % of 500 requests, 20 keys" in lines
        assert [name for name in NAMES if f"{name} (" in err] == [n for n in NAMES if n not in installed]

    def test_without_the_other_libraries(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "version", version)
        code, out, err = run("loop", *FEW)
        assert (code, out.splitlines()[1].split()) == (0, ["entries", *POLICIES, "belady"])
        assert err == (
            "latchstore cache-sim: skipped: cachetools-lru (cachetools is not installed); "
            "cachetools-lfu (cachetools is not installed); theine (theine is not installed)\n"
        )
        code, out, err = run("loop", *FEW, "--policies", "lru,theine")
        assert (code, out) == (2, "")
        assert err == (
            "latchstore cache-sim: error: --policies: theine cannot be compared: theine is not installed\n"
        )

    def test_policies_are_shown_in_the_order_in_which_they_are_named(self, run: Run) -> None:
        code, out, err = run("loop", *FEW, "--policies", "belady, lru,belady")
        assert (code, err, out.splitlines()[1].split()) == (0, "", ["entries", "belady", "lru"])

    def test_a_file_and_standard_input(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "a\nb\na\nb\nc\na\n"
        (tmp_path / "trace").write_text(text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        options = ("--policies", "lru,belady", "--sizes", "2")
        expected = {"lru": 2 / 6, "belady": 3 / 6}
        assert ratios(run, tmp_path / "trace", *options) == expected
        assert ratios(run, "-", *options) == expected
        assert ratios(run, tmp_path / "trace", *options, "--requests", 4) == {"lru": 0.5, "belady": 0.5}

    def test_options_make_a_difference(self, run: Run) -> None:
        def of(*options: object) -> dict[str, Any]:
            return ratios(run, "zipf", "--policies", "lru", "--sizes", "10", *options)

        plain = of("--requests", 2_000)
        assert plain == of("--requests", 2_000)
        assert plain != of("--requests", 2_000, "--seed", 1)
        assert plain != of("--requests", 2_000, "--alpha", 0.7)
        assert plain != of("--requests", 2_000, "--keys", 100)
        assert plain != of("--requests", 2_000, "--warm-up", 1_000)
        assert of("--requests", 2_000, "--alpha", 0.7)["lru"] < plain["lru"]

    def test_on_a_terminal(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "90")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        code, out, err = run("loop", *FEW, "--policies", "lru", "--sizes", "5")
        assert code == 0
        assert "5 (10 %)" in out
        shown = err.split("\r\x1b[K")
        assert shown[0] == shown[-1] == ""
        assert shown[1:-1] == ["loop: 500 requests read", "loop: lru of 5 entries: 100 %"]

    def test_on_a_terminal_without_rich(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        _, out, _ = run("loop", *FEW, "--policies", "lru", "--sizes", "5")
        assert out.splitlines()[1:] == [" entries   lru", "5 (10 %)  0.00"]

    def test_nothing_in_a_name_gets_to_the_terminal(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "a\x1b[31m"
        path.write_text("a\n")
        _, out, _ = run(path, "--policies", "lru")
        assert "\\x1b[31m" in out
        _, _, err = run(tmp_path / "b\x1b[31m", "--policies", "lru")
        assert "\x1b" not in out + err


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing-file"], "trace 'missing-file': cannot be read: No such file or directory"),
            (["zipf:x"], "trace 'zipf:x': ALPHA must be a number of at least 0"),
            (["-", "-"], "trace '-': standard input can be read only once"),
            (["loop", "--sizes", "1,x"], "--sizes must be .*, got 'x'"),
            (["loop", "--sizes", "1,"], "--sizes must be .*, got ''"),
            (["loop", "--sizes", "200%"], "--sizes must be .*, got '200%'"),
            (["loop", "--policies", "lru,fifo"], "--policies must be one or more of sieve, .*, got 'fifo'"),
            (["loop", "--alpha", "-1"], "--alpha must be a number of at least 0, got -1"),
            (["loop", "--alpha", "nan"], "--alpha must be a number of at least 0, got nan"),
            (["loop:3", "--requests", "3", "--warm-up", "3"], "--warm-up must be below the 3 requests"),
            (["loop", "--write", "missing.md"], "--write 'missing.md': cannot be read: No such file"),
            (["loop", "--plot", "missing/x.png"], "--plot 'missing/x.png': the file cannot be created"),
            (["loop", "--plot", "."], "--plot '.': the file cannot be created"),
        ],
    )
    def test_one_line_names_the_argument(
        self,
        arguments: list[str],
        message: str,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if "--plot" in arguments:
            pytest.importorskip("matplotlib")
        monkeypatch.chdir(tmp_path)
        code, out, err = (
            run(*arguments, "--policies", "lru") if "--policies" not in arguments else run(*arguments)
        )
        assert (code, out, err.count("\n")) == (2, "", 1)
        with pytest.raises(AssertionError, match=f"^latchstore cache-sim: error: {message}"):
            raise AssertionError(err)

    @pytest.mark.parametrize("option", ["--requests", "--keys", "--warm-up"])
    @pytest.mark.parametrize("value", ["-1", "1.5", "many"])
    def test_numbers(self, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["cache-sim", "loop", f"{option}={value}"])
        assert stop.value.code == 2
        assert f"argument {option}: must be" in capsys.readouterr().err

    def test_no_trace_at_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(["cache-sim"])
        assert stop.value.code == 2
        assert "TRACE" in capsys.readouterr().err

    def test_an_empty_trace(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("\n\n")
        code, out, err = run(tmp_path / "empty", "--policies", "lru")
        assert (code, out) == (2, "")
        assert err.endswith("empty': has no requests\n")

    def test_an_interrupt(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "simulate", interrupted)
        assert run("loop", "--policies", "lru") == (130, "", "latchstore cache-sim: interrupted\n")

    def test_a_full_disk(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(command, "simulate", full)
        code, out, err = run("loop", "--policies", "lru")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "No space left on device" in err


class TestFiles:
    OPTIONS = ("loop:5", "--policies", "lru", "--sizes", "5", "--requests", 10)

    def test_a_table_is_put_where_it_belongs(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "README.md"
        path.write_text(f"before\n\n{command.BEGIN}\nold\n{command.END}\n\nafter: grün\n", encoding="utf-8")
        for _ in range(2):
            assert run(*self.OPTIONS, "--seed", 7, "--write", path)[0] == 0
            assert path.read_text(encoding="utf-8").split("\n\n") == [
                "before",
                command.BEGIN,
                "```sh\npython -m latchstore cache-sim "
                "loop:5 --policies lru --sizes 5 --requests 10 --seed 7\n```",
                "| trace | keys | entries | lru |\n|---|--:|--:|--:|\n"
                "| `loop:5` | 5 | 5 (100 %) | **50.00** |",
                command.END,
                "after: grün\n",
            ]

    @pytest.mark.parametrize("text", ["", command.BEGIN, f"{command.END}{command.BEGIN}"])
    def test_a_file_without_a_place_for_it_stays_as_it_is(self, text: str, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "README.md"
        path.write_text(text)
        code, out, err = run(*self.OPTIONS, "--write", path)
        assert (code, out, path.read_text()) == (2, "", text)
        assert "must have the lines <!-- cache-sim: begin -->" in err

    @pytest.mark.timeout(300)  # importing matplotlib is slow on a busy machine
    def test_a_plot_and_its_place_in_the_file(self, run: Run, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        (tmp_path / "plots").mkdir()
        plot, page = tmp_path / "plots" / "ratios.png", tmp_path / "README.md"
        page.write_text(f"{command.BEGIN}{command.END}")
        code, _, err = run(*self.OPTIONS, "--plot", plot, "--write", page)
        assert (code, err) == (0, "")
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert "](plots/ratios.png)" in page.read_text()

    def test_a_plot_without_matplotlib(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        code, out, err = run(*self.OPTIONS, "--plot", tmp_path / "ratios.png")
        assert (code, out) == (2, "")
        assert err == (
            "latchstore cache-sim: error: --plot needs matplotlib: "
            "run python -m pip install 'latchstore[simulation]'\n"
        )
