"""The report does what it should in a browser, where there is one (Debian's package ``chromium``)."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from latchstore.stress.history import History, Operation
from latchstore.stress.report import report_html
from latchstore.stress.result import Mark, Result
from latchstore.stress.verdict import VALID, Verdict

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")

OPERATIONS = [
    Operation(number % 3, ("set", "get")[number % 2], f"key/{number % 5}", number, None, begin, begin + 8_000)
    for number in range(60)
    for begin in [10_000 * number]
]


def page_of(bad: bool) -> str:
    verdict = Verdict("invalid", "two at once", (OPERATIONS[30], OPERATIONS[31])) if bad else VALID
    return report_html(
        Result(
            command="python -m latchstore stress --seed 1",
            history=History(OPERATIONS, {"seed": 1}),
            verdicts={"registers": {"linearizable": verdict}},
            marks=(Mark(300_000, "forks"),),
        )
    )


def in_browser(page: str, path: Path, script: str = "") -> str:
    """Open a page, run a script at its end, and return what the document is then."""
    assert BROWSER is not None
    # An error anywhere in the page's own script is put where the test finds it.
    catch = '<script>window.onerror = (text) => { document.title = "ERROR " + text; };</script>'
    file = path / "report.html"
    file.write_text(
        page.replace("<head>", "<head>" + catch).replace("</body>", f"<script>{script}</script></body>"),
        encoding="utf-8",
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ]
    profile = f"--user-data-dir={path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *options, profile, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "<title>ERROR" not in done.stdout
    return done.stdout


def note_of(document: str) -> str:
    found = re.search(r'<span id="note">([^<]*)</span>', document)
    assert found is not None
    return unescape(found[1])


def bars_of(document: str) -> int:
    return document.count('class="operation"')


def test_all_operations_of_a_right_run_are_drawn(tmp_path: Path) -> None:
    document = in_browser(page_of(False), tmp_path)
    assert bars_of(document) == 60
    assert note_of(document).startswith("60 bars, 0 ns to ")
    for thread in range(3):
        assert f">thread {thread}</text>" in document
    assert "<title>forks</title>" in document


def test_a_wrong_run_is_opened_at_its_error(tmp_path: Path) -> None:
    document = in_browser(page_of(True), tmp_path)
    assert 2 <= bars_of(document) < 10
    assert document.count('stroke="var(--told)" stroke-width="3"') == 2
    assert "invalid: registers, linearizable" in document


@pytest.mark.parametrize(
    ("script", "bars"),
    [
        ('document.getElementById("all").click();', 60),
        (
            'document.getElementById("all").click(); const f = document.getElementById("filter");'
            'f.value = "key/1"; f.dispatchEvent(new Event("input"));',
            12,
        ),
    ],
    ids=["all", "one key"],
)
def test_the_controls_work(tmp_path: Path, script: str, bars: int) -> None:
    assert bars_of(in_browser(page_of(True), tmp_path, script)) == bars


def test_closer_shows_less_and_a_hint_tells_of_a_bar(tmp_path: Path) -> None:
    script: Any = (
        'document.getElementById("in").click();'
        'document.querySelector(".operation").dispatchEvent(new PointerEvent("pointerenter"));'
    )
    document = in_browser(page_of(False), tmp_path, script)
    assert 25 <= bars_of(document) <= 35
    assert re.search(r'<div id="hint">thread \d: [sg]et\(', document)


def test_it_fits_a_narrow_window(tmp_path: Path) -> None:
    script = 'document.title = "width " + (document.documentElement.scrollWidth - window.innerWidth);'
    document = in_browser(page_of(True), tmp_path, script)
    assert "<title>width 0</title>" in document or "<title>width -" in document
