"""The examples do what their docstrings promise. Gunicorn, FastAPI and the demo have files of their own."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: Requests that are made at the same time.
CLIENTS = 20


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield an example as a module; it may set the level of the logger for its whole process."""
    logger = logging.getLogger("latchstore")
    level = logger.level
    name = request.param
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, name, module)
    specification.loader.exec_module(module)
    yield module
    logger.setLevel(level)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_begins_with_what_it_shows_and_how_to_run_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None
    commands = [line.strip() for line in docstring.splitlines() if line.startswith("    ")]
    assert any(path.stem in command for command in commands) or "``python -m latchstore" in docstring


@pytest.mark.skipif(importlib.util.find_spec("flask") is None, reason="needs flask")
@pytest.mark.parametrize("example", ["flask_cache"], indirect=True)
def test_threads_of_a_flask_service_share_a_cache(example: Any) -> None:
    app = example.create_app(seconds=0.05)

    def ask(path: str) -> Any:
        response = app.test_client().get(path)
        assert response.status_code == 200
        return response.json

    with ThreadPoolExecutor(CLIENTS) as clients:
        pages = list(clients.map(ask, ["/products/pen"] * CLIENTS))
    assert pages == [{"name": "pen", "price": 3}] * CLIENTS
    assert ask("/stats")["loads"] == 1

    assert ask("/products") == {"pen": 3, "ink": 5}
    assert app.test_client().put("/products/pen/4").json == {"removed": 2}
    assert (ask("/products/pen"), ask("/products")) == ({"name": "pen", "price": 4}, {"pen": 4, "ink": 5})
    app.test_client().put("/products/glue/1")
    assert ask("/products") == {"pen": 4, "ink": 5, "glue": 1}
    assert app.test_client().get("/products/paper").status_code == 404
    stats = ask("/stats")
    assert (stats["loads"], stats["load_failures"]) == (5, 1)


#: What the pool prints when all jobs have ended.
DONE = "39 thumbnails\npicture-13 failed 3 times: ValueError: not a picture\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_pool_shows_its_progress_on_a_terminal() -> None:
    pytest.importorskip("tqdm")
    import pty
    import termios

    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 80))
    command = [sys.executable, str(EXAMPLES / "work_queue.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_end, text=True) as process:
        os.close(its_end)
        shown = b""
        try:
            while block := os.read(terminal, 4096):
                shown += block
        except OSError:
            pass  # what Linux raises when the process has closed its end
        finally:
            os.close(terminal)
        printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (0, "Worked(acked=39, retried=6, dead=1, lost=0)\n" + DONE)
    assert b"thumbnails: 100%" in shown
    assert b"40/40" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("example", ["work_queue"], indirect=True)
def test_what_a_pool_has_not_done_at_ctrl_c_is_done_by_the_next(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, begun, interrupted = str(tmp_path / "jobs"), itertools.count(1), threading.Event()

    def sleep(seconds: float) -> None:
        """Interrupt the pool in the first job; the others do not end before that."""
        if next(begun) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.set()
        assert interrupted.wait(60)
        real_sleep(seconds)

    real_sleep = example.time.sleep
    with monkeypatch.context() as patch:
        patch.setattr(example, "time", SimpleNamespace(sleep=sleep))
        assert example.main([file]) == 130
    assert capsys.readouterr().out == "stopped\n"
    assert example.main([file]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(DONE)
    assert "acked=39" not in printed


@pytest.mark.parametrize("example", ["test_lru_race"], indirect=True)
def test_the_race_is_found(example: Any) -> None:
    report = example.RacyLRUTest.run()
    assert report.answer == "invalid"
    assert "get -> raises KeyError" in str(report)
    assert example.LRUTest.run(schedules=30).answer == "valid"
