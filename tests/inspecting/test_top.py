"""The page of ``latchstore.top`` without a browser: who may read it, what it streams, and that it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from latchstore import (
    Cache,
    DictMemoryStore,
    EventManager,
    SqliteStore,
    StoreEvent,
    StoreSetEvent,
    WorkQueue,
    top,
)
from latchstore.__main__ import main
from tests.inspecting.runs import saved_file, shared_file
from tests.inspecting.streams import TIMEOUT, Stream, ask
from tests.schedules import Actor


@pytest.fixture
def store() -> Iterator[DictMemoryStore]:
    with DictMemoryStore(EventManager()) as store:
        yield store


@pytest.fixture
def page(store: DictMemoryStore) -> Iterator[top.Page]:
    with top.serve(store, interval=0.05) as page:
        yield page


@pytest.fixture(scope="module")
def shared_page() -> Iterator[top.Page]:
    """One for tests that only ask: the end of a server is waited for."""
    with DictMemoryStore(EventManager()) as store, top.serve(store, interval=0.05) as page:
        yield page


class TestWhoMayRead:
    @pytest.fixture
    def page(self, shared_page: top.Page) -> top.Page:
        return shared_page

    @pytest.mark.parametrize("path", ["/", "/top.js", "/top.css", "/state"])
    def test_answers_are_guarded(self, page: top.Page, path: str) -> None:
        answer = ask(page.url, path)
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1234", "127.0.0.1:9", "[::1]:80"])
    def test_names_of_this_machine(self, page: top.Page, host: str) -> None:
        assert ask(page.url, host=host).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            "",
            "evil.example",
            "evil.example:8765",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "127.0.0.1:1:2",
            "127.0.0.1|evil.example",
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/state", "/events", "/top.js"])
    def test_other_names_are_refused(self, page: top.Page, path: str, host: str) -> None:
        assert ask(page.url, path, host=host).status == 403

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_other_sites_are_refused(self, page: top.Page, site: str) -> None:
        for path in "/state", "/events", "/top.js":
            assert ask(page.url, path, Sec_Fetch_Site=site).status == 403
        assert ask(page.url, Sec_Fetch_Site=site).status == 200  # a link
        assert ask(page.url, "/state", Sec_Fetch_Site="same-origin").status == 200

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_nothing_can_be_sent(self, page: top.Page, method: str) -> None:
        assert ask(page.url, "/state", method=method).status == 501

    @pytest.mark.parametrize("path", ["/no", "/../top.js", "/top.html", "//etc/passwd", "/server.py"])
    def test_there_is_nothing_else(self, page: top.Page, path: str) -> None:
        assert ask(page.url, path).status == 404

    def test_this_machine_alone(self, page: top.Page) -> None:
        assert page.url.startswith("http://127.0.0.1:")
        port = urlsplit(page.url).port
        # Another address of loopback: the server would answer if it were bound to all of them.
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), TIMEOUT):  # noqa: PT011
            pass

    def test_the_page_loads_nothing_from_elsewhere(self) -> None:
        folder = files("latchstore.inspecting")
        html, css, script = (
            folder.joinpath(f"top.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
        )
        assert not re.search(r"https?:|//[a-z]|url\(|@import", html + css)
        assert not re.search(r"<script(?! src=\"top\.js\" defer>)|\son[a-z]+=|style=", html)
        assert not re.search(r"https?:|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


class TestChanges:
    def test_they_come_in_order(self, store: DictMemoryStore, page: top.Page) -> None:
        store.set("before", (b"12", {"state": "new"}))
        with Stream(page.url) as stream:
            with store.transaction("both"):
                store.set("a", (b"123", {}))
                store.delete("before")
            store.set("a", (b"", {"text": "x" * 10_000}))
            changes = stream.changes(4)
        assert [(each["number"], each["action"], each["key"]) for each in changes] == [
            (1, "set", "before"),
            (2, "delete", "before") if changes[1]["key"] == "before" else (2, "set", "a"),
            (3, "set", "a") if changes[1]["key"] == "before" else (3, "delete", "before"),
            (4, "update", "a"),
        ]
        assert (changes[0]["size"], changes[0]["metadata"], changes[0]["transaction"]) == (
            2,
            "{'state': 'new'}",
            None,
        )
        assert [each["transaction"] for each in changes[1:3]] == ["both", "both"]
        assert len(changes[3]["metadata"]) < 200

    def test_more_than_the_page_has_are_a_gap(self, store: DictMemoryStore, page: top.Page) -> None:
        """Each revision is shown, or in a gap, or was missed by the browser; the last one is shown."""
        with Stream(page.url) as stream:
            for number in range(2_000):
                store.from_bytes(str(number), b"")
            revision, gaps, is_known = 0, 0, True
            while revision < 2_000:
                for change in stream.changes(1):
                    if change["action"] == "missed":
                        is_known = False
                        continue
                    first = change["first"] if change["action"] == "gap" else change["revision"]
                    assert first == revision + 1 or (first > revision and not is_known)
                    revision = change["last"] if change["action"] == "gap" else first
                    is_known = True
                    gaps += change["action"] == "gap"
        assert change["key"] == "1999"
        assert gaps > 0

    def test_a_commit_of_more_than_that_is_a_gap(self, store: DictMemoryStore, page: top.Page) -> None:
        with Stream(page.url) as stream:
            store.multiset_data(map(str, range(1_000)), [b""] * 1_000)
            store.from_bytes("after", b"")
            shown = stream.changes(1)
            while shown[-1].get("key") != "after":
                shown += stream.changes(1)
        assert (shown[0]["action"], shown[0]["first"]) == ("gap", 1)

    def test_a_browser_that_comes_late_has_the_last_ones(
        self, store: DictMemoryStore, page: top.Page
    ) -> None:
        with Stream(page.url) as stream:
            for part in range(3):
                for number in range(100):
                    store.from_bytes(f"{part}:{number}", b"")
                stream.changes(100)
        with Stream(page.url) as late:
            missed, *changes = late.changes(201)
        assert missed == {"action": "missed"}
        assert [each["number"] for each in changes] == list(range(101, 301))

    def test_a_browser_that_comes_back_goes_on(self, store: DictMemoryStore, page: top.Page) -> None:
        with Stream(page.url) as stream:
            store.from_bytes("a", b"")
            last = stream.next("changes")
            assert last.id == f"{stream.server}-1"
        store.from_bytes("b", b"")
        with Stream(page.url, last.id) as again:
            assert again.server == stream.server
            assert [each["key"] for each in again.changes(1)] == ["b"]
        for other in "another-1", f"{stream.server}-x", "-", f"{stream.server}-{'9' * 400}":
            with Stream(page.url, other) as anew:
                assert [each["key"] for each in anew.changes(2)] == ["a", "b"]

    def test_a_browser_that_reads_nothing_holds_up_nobody(
        self, store: DictMemoryStore, page: top.Page
    ) -> None:
        with Stream(page.url), Stream(page.url) as other:  # the first is not read from here on
            for number in range(2_000):
                store.set("k" * 200, (b"", {"number": number, "text": "x" * 80}))
            store.from_bytes("last", b"")
            while other.changes(1)[-1].get("key") != "last":
                continue
        assert store.stats()["events_pending"] == 0

    def test_any_key_can_be_shown(self, store: DictMemoryStore, page: top.Page) -> None:
        keys = ["<script>alert(1)</script>", "a\r\n\r\nevent: x", "\ud800", "\0", "é" * 500]
        with Stream(page.url) as stream:
            for key in keys:
                store.from_bytes(key, b"")
            changes = stream.changes(len(keys))
        assert [each["key"] for each in changes[:4]] == keys[:4]
        assert changes[4]["key"] == "é" * 200 + "…"


class TestState:
    def test_what_goes_on(self, store: DictMemoryStore) -> None:
        cache = Cache[int](max_entries=10)
        cache["a"] = cache["b"] = 1
        assert cache["a"] == 1
        WorkQueue(store, "mails").put({})

        def listener(event: StoreEvent) -> None:
            pass

        store.event_manager.connect(StoreSetEvent, listener)
        with top.serve(store, caches={"pages": cache}, interval=0.05) as page:
            with Stream(page.url) as stream, Actor(store, "teller") as teller:
                teller.begin("pay")
                other = threading.Thread(target=store.from_bytes, args=("late", b""), name="other")
                other.start()
                state = stream.state(lambda state: state["activity"]["waiting"])
                teller.commit()
                other.join(TIMEOUT)
                state_after = stream.state(
                    lambda state: state["activity"]["listeners"] and not state["activity"]["writer"]
                )
            assert ask(page.url, "/state").json["store"] == repr(store)
        assert state["store"].startswith("<DictMemoryStore ")
        assert state["error"] is None
        assert state["activity"]["writer"]["purpose"] == "transaction 'pay'"
        assert [each["thread"] for each in state["activity"]["waiting"]] == ["other"]
        assert [each["notes"] for each in state["activity"]["transactions"]] == ["pay"]
        (shown,) = state["caches"]
        assert (shown["name"], shown["entries"], shown["max_entries"], shown["hits"]) == ("pages", 2, 10, 1)
        (queue,) = state["queues"]
        assert (queue["name"], queue["waiting"]) == ("mails", 1)
        assert state_after["activity"]["listeners"][0]["name"].endswith("listener")
        assert state_after["info"]["revision"] == state_after["stats"]["revision"]

    def test_a_cache(self) -> None:
        with Cache[int](max_entries=10) as cache, top.serve(cache) as page:
            (shown,) = ask(page.url, "/state").json["caches"]
            assert shown["name"] == "cache"

    def test_indexes_are_named(self) -> None:
        with DictMemoryStore(EventManager(), indexes=["state"]) as store, top.serve(store) as page:
            assert ask(page.url, "/state").json["info"]["indexes"] == ["state"]

    def test_a_store_that_is_closed_and_opened(self, store: DictMemoryStore, page: top.Page) -> None:
        with Stream(page.url) as stream:
            store.from_bytes("a", b"")
            assert [each["key"] for each in stream.changes(1)] == ["a"]
            store.close()
            stream.state(lambda state: state["info"]["closed"])
            store.connect()
            stream.state(lambda state: not state["info"]["closed"] and state["stats"]["watches"] == 1)
            store.from_bytes("b", b"")
            assert [each["key"] for each in stream.changes(1)] == ["b"]

    def test_what_the_store_raises_is_shown(
        self, store: DictMemoryStore, page: top.Page, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def info(self: object) -> None:
            raise ConnectionError("the server is away")

        monkeypatch.setattr(DictMemoryStore, "info", info)
        with Stream(page.url) as stream:
            state = stream.state(lambda state: state["error"])
            assert state["error"] == "ConnectionError: the server is away"
            monkeypatch.undo()
            stream.state(lambda state: state["error"] is None)


class TestTheEnd:
    def test_threads_and_port(self, store: DictMemoryStore) -> None:
        before = set(threading.enumerate())
        page = top.serve(store)
        assert repr(page) == f"<open page at {page.url}>"
        port = urlsplit(page.url).port
        assert port is not None
        with ExitStack() as stack:
            streams = [stack.enter_context(Stream(page.url)) for _ in range(3)]
            page.close()
            page.close()
            assert repr(page) == f"<closed page at {page.url}>"
            assert all(stream.has_ended() for stream in streams)
        assert set(threading.enumerate()) == before
        assert store.stats()["watches"] == 0
        with top.serve(store, port) as again:
            assert urlsplit(again.url).port == port
            with pytest.raises(OSError, match="use"):
                top.serve(store, port)
        assert set(threading.enumerate()) == before
        assert store.stats()["watches"] == 0

    def test_no_more_streams_than_are_useful(self, page: top.Page) -> None:
        with ExitStack() as stack:
            for _ in range(16):
                stack.enter_context(Stream(page.url))
            assert ask(page.url, "/events").status == 503

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_does_not_keep_the_port(self) -> None:
        code = (
            "import os, sys, warnings\n"
            "from latchstore import DictMemoryStore, EventManager, top\n"
            "store = DictMemoryStore(EventManager())\n"
            "page = top.serve(store)\n"
            "port = int(page.url.rstrip('/').rpartition(':')[2])\n"
            "read, write = os.pipe()\n"
            "warnings.simplefilter('ignore')\n"
            "if os.fork() == 0:\n"
            "    os.read(read, 1)\n"
            "    os._exit(0)\n"
            "page.close()\n"
            "top.serve(store, port).close()\n"
            "os.write(write, b'x')\n"
            "assert os.wait()[1] == 0\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_arguments(self, store: DictMemoryStore) -> None:
        anything: Any = top.serve
        with pytest.raises(TypeError, match="store must be"):
            anything({})
        with pytest.raises(TypeError, match="caches must be"):
            anything(store, caches={"a": store})
        with pytest.raises(TypeError, match="port must be an int"):
            anything(store, "80")
        with pytest.raises(ValueError, match="port must be from 0 to 65535"):
            anything(store, 70_000)
        with pytest.raises(ValueError, match="interval"):
            anything(store, interval=0)
        assert store.stats()["watches"] == 0


class TestCommand:
    @pytest.mark.skipif(os.name != "posix", reason="stopped by a signal")
    @pytest.mark.usefixtures("interruptible")
    def test_a_file_that_others_write(self, tmp_path: Path) -> None:
        path = shared_file(tmp_path)
        command = [sys.executable, "-m", "latchstore", "top", str(path), "--port", "0"]
        with (
            SqliteStore(path, EventManager()) as store,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        ):
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.endswith(f" shows {path}; Ctrl-C ends it\n")
            with Stream(line.partition(" ")[0]) as stream:
                with store.transaction("elsewhere"):
                    if sys.platform.startswith("linux"):
                        state = stream.state(lambda state: state["activity"]["writer"])
                        assert state["activity"]["writer"]["process"] == os.getpid()
                    store.from_bytes("new", b"")
                (change,) = stream.changes(1)
                assert (change["key"], change["transaction"]) == ("new", "elsewhere")
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""

    def error(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
        assert main(["top", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("latchstore top: error: ")
        return err

    def test_what_cannot_be_followed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = saved_file(tmp_path)
        before = path.read_bytes()
        assert "latchstore.top.serve(store)" in self.error(capsys, path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["saved.db"]
        assert "there is no such file" in self.error(capsys, tmp_path / "no")
        assert "is not a store or a cache" in self.error(capsys, "latchstore:__version__")

    def test_a_port_that_is_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = shared_file(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert f"port {port}: " in self.error(capsys, path, "--port", port)
        assert "65535" in self.error(capsys, path, "--port", 70_000)
