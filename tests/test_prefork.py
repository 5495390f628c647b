"""A server makes its store before it forks its workers: each has one of its own, with a thread of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

TIMEOUT = 20

#: How many requests are made before a worker is killed, and after that.
REQUESTS = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Return a gunicorn that listens on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-c", "python:tests.prefork_application"),
                *("--bind", f"fd://{listening.fileno()}", "--worker-tmp-dir", str(tmp_path)),
                "tests.prefork_application:serve",
            ],
            cwd=Path(__file__).parents[1],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        port = listening.getsockname()[1]
    try:
        yield process, port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(port: int, path: str) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        answer: dict[str, Any] = json.loads(response.read())
        return answer
    finally:
        connection.close()


def kill(worker: int) -> None:
    """Kill a process and wait until its parent knows."""
    os.kill(worker, signal.SIGKILL)
    for _ in range(TIMEOUT * 100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        threading.Event().wait(0.01)
    raise TimeoutError(f"the worker {worker} has not been missed")


@pytest.mark.timeout(120)
def test_workers_that_are_forked_after_the_store_was_made(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = server
    answers: list[dict[str, Any]] = []
    with ThreadPoolExecutor(8) as pool:
        answers += pool.map(lambda number: ask(port, f"/first-{number}"), range(REQUESTS))
        # The master forks another worker, while its own threads go on.
        killed = answers[0]["pid"]
        kill(killed)
        later = list(pool.map(lambda number: ask(port, f"/then-{number}"), range(REQUESTS)))
    assert killed not in {answer["pid"] for answer in later}
    answers += later
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "CRITICAL" not in err

    of_worker = defaultdict(list)
    for answer in answers:
        of_worker[answer["pid"]].append(answer)
        assert answer["heard"]
        assert answer["of_others"] == []
        left, right = answer["sides"]
        assert left == right, "half a commit of the master"
    assert process.pid not in of_worker
    for found in of_worker.values():
        # Each worker has counted its own requests, and all of them.
        assert sorted(answer["visits"] for answer in found) == list(range(1, len(found) + 1))
        revisions = sorted(answer["revision"] for answer in found)
        assert revisions == list(range(revisions[0], revisions[0] + len(found)))
        # What the master had before the fork is there, and what it wrote after that is not.
        assert len({answer["sides"][0] for answer in found}) == 1

    master = json.loads(out)
    assert master["keys"] == ["left", "right"]
    assert master["pids"] == [master["master"]] == [process.pid]
    assert master["heard"] == 2 * master["commits"]
    assert master["errors"] == 0
