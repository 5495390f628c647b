"""The report can be read in a browser, where there is one (Debian's package ``chromium``).

The page has no script; the tests add one that measures.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from latchstore.stress.history import History, Operation
from latchstore.stress.report import report_html
from latchstore.stress.result import Access, Mark, Result, Step
from latchstore.stress.verdict import Explanation, Verdict

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")

#: Of calls that begin within each other, with texts of all lengths.
OPERATIONS = [
    Operation(n % 3, ("set", "get")[n % 2], f"key/{'x' * n}", n, None, 10_000 * n, 10_000 * n + 15_000)
    for n in range(30)
]

#: What is told of the first element that a condition holds of, in the title of the page.
MEASURE = """
const rect = (one) => one.getBoundingClientRect();
const bars = [...document.querySelectorAll(".call")];
const lanes = [...document.querySelectorAll(".lane")];
const wrong = [];
for (const bar of bars) {
  if (bar.scrollWidth > bar.clientWidth + 1) wrong.push("too narrow: " + bar.textContent);
  const lane = lanes[parseInt(bar.style.gridRow) / 2 - 1];
  if (Math.abs(rect(lane).top - rect(bar).top) > 1) wrong.push("not in its lane: " + bar.textContent);
}
for (const point of document.querySelectorAll(".point")) {
  const bar = point.previousElementSibling, at = rect(point);
  if (at.left < rect(bar).left || at.right > rect(bar).right) wrong.push("outside: " + bar.textContent);
}
if (document.documentElement.scrollWidth > window.innerWidth) wrong.push("wider than the window");
document.title = wrong.length ? wrong[0] : "measured " + bars.length;
"""


def page() -> str:
    explanation = Explanation(tuple(OPERATIONS[:20]), (), OPERATIONS[20], "1", "2")
    verdict = Verdict("invalid", "wrong" * 50, explanation=explanation)
    access = Access(5, "a_module_with_a_name.py:1 in a_function", "writes", "self." + "x" * 200)
    return report_html(
        Result(
            command="python -m latchstore stress " + 40 * "--seed 1 ",
            history=History(OPERATIONS, {"seed": 1}),
            verdicts={"registers": {"linearizable": verdict}},
            steps=(Step(0, access.where, "x = " + "y" * 200, 6, (access,)),),
            marks=(Mark(150_000, "forks"),),
        )
    )


@pytest.mark.parametrize("size", ["1200,900", "500,900"])
def test_it_can_be_read(size: str, tmp_path: Path) -> None:
    assert BROWSER is not None
    file = tmp_path / "report.html"
    file.write_text(page().replace("</body>", f"<script>{MEASURE}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--disable-background-networking", f"--window-size={size}"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *options, profile, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "<title>measured 30</title>" in done.stdout, done.stdout[:600]
