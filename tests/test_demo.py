"""The demo: the dict fails its checks, the store passes, a store that is wrong does not; what is shown."""

from __future__ import annotations

import inspect
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from latchstore.__main__ import main

demo: Any = import_module("latchstore.examples.demo")

COMMAND = [sys.executable, "-m", "latchstore", "demo"]
ESCAPE = "\x1b"


def run(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["demo"])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


def verdicts(out: str) -> list[tuple[str, str]]:
    return re.findall(r"^  (dict|store) +(ok|FAILED)  ", out, re.MULTILINE)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few writes, so that a play is short; on the dict there is one, whatever comes of it."""
    for name, number in (("VISITS", 10), ("TRANSFERS", 20), ("BATCHES", 5), ("ATTEMPTS", 1)):
        monkeypatch.setattr(demo, name, number)


def test_the_dict_fails_and_the_store_passes(capsys: pytest.CaptureFixture[str]) -> None:
    interval = sys.getswitchinterval()
    code, out = run(capsys)
    assert code == 0
    assert verdicts(out) == [("dict", "FAILED"), ("store", "ok")] * 3 + [("store", "ok")]
    assert "visits wrong: lost (" in out
    assert "euros, not 1,000 (" in out
    assert "RuntimeError: dictionary " in out
    assert "\nThe dict fails 3 of 3 checks, the store 0 of 4.\n\nWhat to read next:\n" in out
    assert sys.getswitchinterval() == interval
    assert ESCAPE not in out


def test_its_own_code_and_the_events_are_shown(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys)
    assert (
        "\n    # OnStore\n    def transfer(self, euros: int) -> None:\n        with self.store.transaction"
        in out
    )
    assert "\n    def apply(self, event: StoreModificationEvent) -> None:\n        before = event.prev" in out
    first, second = re.findall(
        r"^    <StoreUpdateEvent key='(?:anna|bert)' .* revision=(\d+)> \{", out, re.MULTILINE
    )
    assert first == second


def visit_in_vain(on_store: Any) -> None:
    pass


def transfer_to_nobody(on_store: Any, euros: int) -> None:
    on_store.add("anna", -1)


def jobs_that_change(on_store: Any) -> list[str]:
    raise RuntimeError("changed\nmeanwhile")


@pytest.mark.parametrize(
    ("name", "broken", "failed", "finding"),
    [
        ("visit", visit_in_vain, 0, "40 of 40 visits wrong: lost (40)"),
        ("transfer", transfer_to_nobody, 1, "sums wrong: 9"),
        ("jobs", jobs_that_change, 2, "lists wrong: RuntimeError: changed"),
    ],
)
def test_a_store_that_is_wrong_fails(
    name: str,
    broken: Callable[..., Any],
    failed: int,
    finding: str,
    few: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo.OnStore, name, broken)
    code, out = run(capsys)
    assert code == 1
    stores = [result for who, result in verdicts(out) if who == "store"]
    assert stores == ["FAILED" if number == failed else "ok" for number in range(4)]
    assert finding in out
    assert "the store 1 of 4." in out


def test_the_listener_finds_out_what_it_was_not_told() -> None:
    replica = demo.Replica()
    with DictMemoryStore(EventManager()) as store:
        store.set_metadata("k", {"n": 1})
        store.event_manager.connect(StoreModificationEvent, replica.apply)
        store.set_metadata("k", {"n": 2})
        store.set_metadata("k", {"n": 3})
        store.flush()
    assert replica.findings == {"out of order": 1, "": 1}


def test_a_dict_that_comes_to_no_harm_is_no_error(
    few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Harmless(demo.OnStore):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(DictMemoryStore())

    monkeypatch.setattr(demo, "OnDict", Harmless)
    code, out = run(capsys)
    assert code == 0
    assert "\nThe dict fails 0 of 3 checks, the store 0 of 4.\n" in out


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (130, "latchstore demo: interrupted\n")


def test_output_into_a_closed_pipe() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("rich", [False, True])
def test_colour_is_for_terminals_with_rich(
    rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if rich:
        pytest.importorskip("rich")
        monkeypatch.setattr("rich._console", None)  # the console of another test may have no colours
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    screen = demo.Screen()
    screen.code("def f() -> None: ...")
    assert screen.judge("dict", Counter({"": 1, "lost": 2}), "visits") is False
    out = capsys.readouterr().out
    assert (f"{ESCAPE}[1;31m  dict  FAILED  2 of 3 visits wrong: lost (2)" in out) is rich
    assert (ESCAPE in out) is rich


@pytest.mark.parametrize(
    ("columns", "shown"), [(11, "    a\n    b\n\n    cc\n\n"), (12, "    a    cc\n    b\n\n")]
)
def test_code_is_side_by_side_where_there_is_room(
    columns: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    demo.Screen().code("a\nb", "cc")
    assert capsys.readouterr().out == shown


def test_it_is_the_file_of_the_examples() -> None:
    file = Path(__file__).parents[1] / "examples" / "demo.py"
    assert inspect.getsource(demo) == file.read_text(encoding="utf-8")
