"""The example of a Flask application: gunicorn's workers share its data, its pages and its queue."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.redis.servers import Server

pytest.importorskip("flask", reason="needs latchstore[flask]")
pytest.importorskip("gunicorn")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

EXAMPLES = Path(__file__).parents[1] / "examples"
TIMEOUT = 20.0
WORKERS = 4
#: Requests that are made at the same time.
CLIENTS = 16


class Shop:
    """The application, served by some processes."""

    def __init__(self, examples: Path, place: str, folder: Path, ends: ExitStack, *options: str) -> None:
        self._environment = {**os.environ, "FLASK_PLACE": place, "FLASK_SECONDS": "0.2"}
        self._examples = examples
        self._ends = ends
        # How often each worker has made a page.
        self._loads: Counter[int] = Counter()
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
            self.start(
                *("gunicorn", "--workers", str(WORKERS), "--worker-tmp-dir", str(folder)),
                *("--bind", f"fd://{listening.fileno()}", "--no-control-socket", *options),
                "flask_shared:create_app()",
                listening=listening.fileno(),
            )
            self._port = listening.getsockname()[1]

    def start(self, *command: str, listening: int | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self._examples,
            env=self._environment,
            pass_fds=() if listening is None else [listening],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._ends.callback(end, process)
        return process

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer
            return json.loads(answer)
        finally:
            connection.close()

    def pages(self, name: str) -> list[dict[str, Any]]:
        """Return what many clients get at the same time, of a page that is not in the cache."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            pages = list(clients.map(lambda number: self.ask("GET", f"/products/{name}"), range(CLIENTS)))
        before = sum(self._loads.values())
        for page in pages:
            worker = page["served_by"]
            self._loads[worker] = max(self._loads[worker], page.pop("loads"))
        assert sum(self._loads.values()) == before + 1, "one load over all workers"
        return pages


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def on_a_server(example: Path, folder: Path) -> None:
    """Write the example with the one line that it names replaced by the other one."""
    lines = example.read_text().splitlines()
    (other,) = [line for line in lines if line.startswith("    return latchstore.RedisStore(")]
    (place,) = [
        number for number, line in enumerate(lines) if line.startswith("    return latchstore.Sqlite")
    ]
    lines[place] = other
    (folder / example.name).write_text("\n".join(lines))


@pytest.fixture
def stores(where: str, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Where the example is, and its stores."""
    if where == "files":
        yield EXAMPLES, str(tmp_path)
        return
    pytest.importorskip("latchstore.redis", reason="needs latchstore[redis]")
    on_a_server(EXAMPLES / "flask_shared.py", tmp_path)
    with Server(where) as server:
        yield tmp_path, server.url


@pytest.fixture
def shop(options: Sequence[str], stores: tuple[Path, str], tmp_path: Path) -> Iterator[Shop]:
    with ExitStack() as ends:
        yield Shop(*stores, tmp_path, ends, *options)


def one_page(pages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the page that all of them are, made once and served by several workers."""
    served_by = {page["served_by"] for page in pages}
    assert len(served_by) > 1
    page = {name: item for name, item in pages[0].items() if name != "served_by"}
    assert all({**page, "served_by": each["served_by"]} == each for each in pages), pages
    assert page["made_by"] in served_by
    return page


def wait_for_all_workers(shop: Shop) -> None:
    seen = set()
    for price in range(20):
        shop.ask("PUT", "/products/pencil", {"price": price})
        seen |= {page["served_by"] for page in shop.pages("pencil")}
        if len(seen) == WORKERS:
            return
    raise AssertionError(f"only {len(seen)} workers have served a page")


@pytest.mark.parametrize(
    ("where", "options"),
    [
        pytest.param("files", (), id="made in each worker"),
        pytest.param("files", ("--preload",), id="made before the fork"),
        pytest.param("redis", (), id="redis, made in each worker"),
        pytest.param("valkey", ("--preload",), id="valkey, made before the fork"),
    ],
)
def test_workers_share_pages_and_jobs(shop: Shop) -> None:
    wait_for_all_workers(shop)
    shop.ask("PUT", "/products/pen", {"price": 3})
    first = one_page(shop.pages("pen"))
    assert first["price"] == 3
    shop.ask("PUT", "/products/ink", {"price": 5})
    assert shop.ask("GET", "/products/pen")["made_at"] == first["made_at"]

    # No worker shows the old page: all of them wait for the one that makes the new one.
    shop.ask("PUT", "/products/pen", {"price": 4})
    second = one_page(shop.pages("pen"))
    assert second["price"] == 4
    assert second["made_at"] > first["made_at"]

    worker = shop.start("flask", "--app", "flask_shared", "work")
    moment = threading.Event()
    for _ in range(int(TIMEOUT / 0.02)):
        mails = shop.ask("GET", "/mails")
        prices = sorted((mail["product"], mail["price"]) for mail in mails if mail["product"] != "pencil")
        if len(prices) == 3:
            break
        moment.wait(0.02)
    assert prices == [("ink", 5), ("pen", 3), ("pen", 4)]
    assert worker.poll() is None
    assert {mail["sent_by"] for mail in mails} == {worker.pid}
