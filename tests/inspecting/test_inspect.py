"""The command ``inspect`` on files: what it shows as text and as JSON, and that it changes nothing."""

from __future__ import annotations

import base64
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, SqliteStore
from tests.inspecting.runs import Run, fill, saved_file, shared_file, state_of

#: Makes a SqliteStore, and ends as it is told to by its input.
OTHER_PROCESS = """
import os, sys
from latchstore import SqliteStore
store = SqliteStore(sys.argv[1])
store.from_bytes("first", b"1")
print("ready", flush=True)
for line in sys.stdin:
    if line == "die\\n":
        os._exit(1)
    store.from_bytes(line.strip(), b"2")
    print("written", flush=True)
store.close()
"""


@pytest.fixture(params=[saved_file, shared_file])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of either kind."""
    path: Path = request.param(tmp_path)
    return path


class TestOverview:
    def test_json(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, file, "--json").json
        shared = file.name == "shared.db"
        assert found["engine"] == ("SqliteStore" if shared else "file of DictMemoryStore.save")
        assert found["place"] == str(file)
        assert found["file_bytes"] == file.stat().st_size
        assert found["keys"] == 21
        assert found["data_bytes"] > 5_000
        assert found["revision"] > 21
        assert found["history_from"] == (1 if shared else None)
        assert found["indexes"] == (["state", "queue.place (ordered)"] if shared else [])
        assert found["caches"] == []
        (queue,) = found["queues"]
        assert 0 <= queue.pop("oldest_waiting") < 1_000
        assert queue == {"name": "mails", "waiting": 2, "delayed": 1, "leased": 1, "dead": 1}
        assert found["largest"][0] == {"key": "<b>\x1b[31mred", "bytes": 5_000}
        assert len(found["largest"]) == 10

    def test_text(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = Run(capsys, file)
        assert run.code == 0
        assert re.search(r"^keys +21$", run.out, re.MULTILINE)
        assert re.search(r"^mails +2 +1 +1 +1 ", run.out, re.MULTILINE)
        assert re.search(r"^<b>\\x1b\[31mred +5 kB$", run.out, re.MULTILINE)
        assert "\x1b" not in run.out
        assert run.err == ""

    def test_caches(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "cache.db"
        with SqliteStore(path, EventManager()) as store:
            cache = Cache[int](store, max_entries=3, idle=60)
            for number in range(5):
                cache[f"key{number}"] = number
        (found,) = Run(capsys, path, "--json").json["caches"]
        assert found.pop("bytes") > 0
        assert found == {"prefix": "", "entries": 3, "idle": 60, "evictions": {"size": 2}}
        assert re.search(r"^\(all keys\) +3 .* 60 s +size 2$", Run(capsys, path).out, re.MULTILINE)

    def test_items_of_others_are_no_jobs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "odd.db"
        with DictMemoryStore(EventManager()) as store:
            for number, place in enumerate(["", "a/b", "a/ready/x", "a/due/1/asleep/2", "a/dead/x/y"]):
                store.set_metadata(str(number), {"queue.place": place})
            store.save(path)
        assert Run(capsys, path, "--json").json["queues"] == []

    def test_an_empty_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "empty.db"
        SqliteStore(path, EventManager()).close()
        found = Run(capsys, path, "--json").json
        assert (found["keys"], found["data_bytes"], found["largest"]) == (0, 0, [])
        assert Run(capsys, path).code == 0


class TestListing:
    def keys(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
        return [each["key"] for each in Run(capsys, *arguments, "--json").json["entries"]]

    @pytest.mark.parametrize(
        ("terms", "numbers"),
        [
            (["state=new"], [1, 3, 5, 7, 9, 11]),
            (["number=3"], [3]),
            (['number="3"'], []),
            (["number=3|5"], [3, 5]),
            (["number=3..6"], [3, 4, 5]),
            (["number<2"], [0, 1]),
            (["number<=2"], [0, 1, 2]),
            (["number>9"], [10, 11]),
            (["number>=9"], [9, 10, 11]),
            (["number>=2", "number<5"], [2, 3, 4]),
            (["number<5", "state=new"], [1, 3]),
            (["state^=ne"], [1, 3, 5, 7, 9, 11]),
            (["state=..."], []),
        ],
    )
    def test_terms(
        self, file: Path, terms: list[str], numbers: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        where = [word for term in terms for word in ("--where", term)]
        assert self.keys(capsys, file, *where) == [f"user:{number:02}" for number in numbers]

    def test_contains(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.keys(capsys, file, "--where", "size~=10") == ["binary"]

    def test_order_and_limit(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        order = ["--keys", "user:*", "--order-by", "number", "--descending", "--limit", 2]
        run = Run(capsys, file, *order, "--json")
        assert [each["key"] for each in run.json["entries"]] == ["user:11", "user:10"]
        assert run.json["more"] is True
        assert Run(capsys, file, "--limit", 0, "--json").json["more"] is False
        assert len(self.keys(capsys, file, "--limit", 0)) == 21

    def test_a_pattern_and_terms(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        both = ["--keys", "user:0*", "--where", "state=new", "--limit", 2]
        run = Run(capsys, file, *both, "--json")
        assert [each["key"] for each in run.json["entries"]] == ["user:01", "user:03"]
        assert run.json["more"] is True

    def test_text(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = Run(capsys, file, "--keys", "user:*", "--limit", 1)
        head, row = run.out.splitlines()
        assert head.split() == ["key", "size", "revision", "modified", "metadata"]
        assert row.startswith("user:00")
        assert row.endswith("state=done, number=0")
        assert "--limit" in run.err
        assert Run(capsys, file, "--keys", "nothing*").out == "no entries\n"

    @pytest.mark.parametrize("term", ["state", "=new", "number<[1]"])
    def test_a_bad_term_is_explained(self, file: Path, term: str, capsys: pytest.CaptureFixture[str]) -> None:
        run = Run(capsys, file, "--where", term)
        assert run.code == 2
        assert run.err.startswith("latchstore inspect: error: ")
        assert repr(term) in run.err


class TestEntry:
    def test_json_content(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, file, "--key", "user:03", "--json").json
        assert found.pop("created") <= found.pop("modified")
        assert found == {
            "key": "user:03",
            "bytes": 13,
            "revision": 4,
            "metadata": {"state": "new", "number": 3},
            "kind": "JSON",
            "value": {"number": 3},
        }
        text = Run(capsys, file, "--key", "user:03").out
        assert '{\n  "number": 3\n}\n' in text
        assert re.search(r'^state +"new"$', text, re.MULTILINE)

    def test_text_content(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, file, "--key", "text", "--json").json
        assert (found["kind"], found["text"], found["left_out"]) == ("text", "ein Käse\n", 0)
        # In the middle of a letter of two bytes.
        found = Run(capsys, file, "--key", "text", "--bytes", 6, "--json").json
        assert (found["kind"], found["text"], found["left_out"]) == ("text", "ein K", 5)

    def test_bytes(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, file, "--key", "binary", "--bytes", 34, "--json").json
        assert found["metadata"] == {"size": {"$tuple": [4, 10]}}
        assert (found["kind"], found["left_out"]) == ("bytes", 6)
        assert base64.b64decode(found["base64"]) == bytes(range(34))
        run = Run(capsys, file, "--key", "binary", "--bytes", 34)
        *_, last = run.out.splitlines()
        assert last == "00000020  20 21" + " " * 44 + "| !|"
        assert "6 bytes more" in run.err

    def test_nothing_is_unpickled(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, file, "--key", "pickled", "--json").json
        assert found["kind"] == "pickle, not decoded"
        assert base64.b64decode(found["base64"]).startswith(b"\x80")

    def test_what_a_cache_kept_by_reference(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "references.db"
        with DictMemoryStore(EventManager()) as store:
            Cache(store, codec="reference")["answer"] = 42
            store.save(path)
        found = Run(capsys, path, "--key", "answer", "--json").json
        assert (found["kind"], found["value"]) == ("int, kept by reference", 42)

    def test_a_key_that_is_not_there(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = Run(capsys, file, "--key", "no\x1b")
        assert (run.code, run.out) == (1, "")
        assert run.err == f"latchstore inspect: error: {file} has no key 'no\\x1b'\n"

    def test_an_entry_is_not_listed(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert Run(capsys, file, "--key", "text", "--limit", 3).code == 2


class TestReadingAlone:
    @pytest.mark.parametrize(
        "arguments", [[], ["--keys", "*"], ["--where", "state=new"], ["--key", "text"]], ids=str
    )
    def test_a_file_at_rest_stays_as_it_is(
        self, file: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = state_of(file.parent)
        assert Run(capsys, file, *arguments).code == 0
        assert state_of(file.parent) == before

    @pytest.mark.skipif(not hasattr(os, "geteuid") or not os.geteuid(), reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.parent.chmod(0o500)
        try:
            assert Run(capsys, file).code == 0
        finally:
            file.parent.chmod(0o700)

    def test_a_file_in_use_stays_as_it_is(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Neither the file, nor the log, nor its index; what is committed is seen at once."""
        path = tmp_path / "used.db"
        with _other_process(path) as other:
            before = state_of(tmp_path)
            assert Run(capsys, path, "--json").json["keys"] == 1
            assert state_of(tmp_path) == before
            _tell(other, "second")
            assert Run(capsys, path, "--json").json["keys"] == 2
            assert other.stdin is not None
            other.stdin.close()
            assert other.wait(20) == 0
        assert Run(capsys, path, "--json").json["keys"] == 2

    def test_a_writer_is_not_waited_for(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = shared_file(tmp_path)
        with SqliteStore(path, EventManager()) as store, store.transaction():
            store.from_bytes("not yet", b"")
            assert Run(capsys, path, "--json").json["keys"] == 21
        assert Run(capsys, path, "--json").json["keys"] == 22

    @pytest.mark.parametrize("index", ["there", "lost"])
    def test_the_log_of_a_killed_process(
        self, tmp_path: Path, index: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "killed.db"
        with _other_process(path) as other:
            _tell(other, "die")
            assert other.wait(20) == 1
        if index == "lost":
            (tmp_path / "killed.db-shm").unlink()
        before = state_of(tmp_path)
        assert Run(capsys, path, "--key", "first", "--json").json["kind"] == "JSON"
        assert state_of(tmp_path) == before

    def test_a_file_that_is_changed_meanwhile_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = shared_file(tmp_path)
        made = [0]

        def change_twice(*arguments: object) -> list[object]:
            if made[0] < 2:
                made[0] += 1
                with SqliteStore(path, EventManager()) as store:
                    store.from_bytes(f"new{made[0]}", b"")
            return []

        monkeypatch.setattr("latchstore.inspecting.report.queues", change_twice)
        assert Run(capsys, path, "--json").json["keys"] == 23
        made[0] = -1_000
        run = Run(capsys, path)
        assert run.code == 2
        assert "is being changed by another program" in run.err


def _other_process(path: Path) -> subprocess.Popen[str]:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    return other


def _tell(other: subprocess.Popen[str], line: str) -> None:
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(f"{line}\n")
    other.stdin.flush()
    other.stdout.readline()


class TestErrors:
    def error(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
        run = Run(capsys, *arguments)
        assert (run.code, run.out) == (2, "")
        assert run.err.startswith("latchstore inspect: error: ")
        assert run.err.count("\n") == 1
        return run.err

    def test_no_such_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert f"{tmp_path / 'no'}: there is no such file" in self.error(capsys, tmp_path / "no")

    def test_a_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "directory" in self.error(capsys, tmp_path)

    def test_files_of_others(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text, database = tmp_path / "text", tmp_path / "other.db"
        text.write_text("text")
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE entries (key)")
        connection.close()
        assert "is not the file of a store" in self.error(capsys, text)
        assert "SQLite database of another program" in self.error(capsys, database)

    def test_damage(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = bytearray(file.read_bytes())
        content[100:200] = b"\xff" * 100
        file.write_bytes(content)
        assert re.search("damaged|malformed", self.error(capsys, file))

    def test_a_file_that_was_cut(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        self.error(capsys, file)

    def test_no_server(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("redis")
        pytest.importorskip("msgpack")
        url = "unix:///nowhere/redis.sock"
        assert "/nowhere/redis.sock" in self.error(capsys, url, "--namespace", "app")

    def test_an_extra_that_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in [each for each in sys.modules if each.startswith("latchstore.redis")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "msgpack", None)
        assert "latchstore[redis]" in self.error(capsys, "redis://localhost", "--namespace", "app")

    def test_modules(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "cannot be loaded" in self.error(capsys, "latchstore:nothing")
        assert "cannot be loaded" in self.error(capsys, "no_such_module:store")
        assert "is not a store or a cache" in self.error(capsys, "latchstore:__version__")


class TestModules:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = (
            "from latchstore import Cache, DictMemoryStore, EventManager\n"
            "store = DictMemoryStore(EventManager(), indexes=['kind'])\n"
            "store.set('a', (b'data', {'kind': 'x'}))\n"
            "cache = Cache(max_entries=5)\n"
            "cache['b'] = 1\n"
            "def make(): return store\n"
        )
        (tmp_path / "app_to_inspect.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "app_to_inspect", raising=False)

    @pytest.mark.parametrize("name", ["store", "make"])
    def test_a_store(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        found = Run(capsys, f"app_to_inspect:{name}", "--json").json
        assert (found["engine"], found["keys"], found["data_bytes"]) == ("DictMemoryStore", 1, 4)
        assert found["indexes"] == ["kind"]
        found = Run(capsys, f"app_to_inspect:{name}", "--where", "kind=x", "--json").json
        assert [each["key"] for each in found["entries"]] == ["a"]

    def test_a_cache(self, capsys: pytest.CaptureFixture[str]) -> None:
        found: dict[str, Any] = Run(capsys, "app_to_inspect:cache", "--json").json
        assert found["keys"] == 1
        assert found["caches"][0]["entries"] == 1


class TestTerminals:
    """By rich where it is installed, and with the same content."""

    @pytest.mark.parametrize("rich", [True, False])
    def test_tables(
        self, tmp_path: Path, rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if rich:
            pytest.importorskip("rich")
        else:
            monkeypatch.setitem(sys.modules, "rich", None)
        path = saved_file(tmp_path)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "120")
        for arguments in [], ["--keys", "*"], ["--key", "user:03"]:
            run = Run(capsys, path, *arguments)
            assert run.code == 0
            assert ("red" in run.out) == (arguments != ["--key", "user:03"])
            assert "\x1b[31m" not in run.out


def test_markup_of_rich_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "markup.db"
    with DictMemoryStore(EventManager()) as store:
        store.set("[bold]key[/bold]", (b"", {"name": "[link=x]y[/link]"}))
        fill(store)
        store.save(path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    out = Run(capsys, path, "--keys", "[[]bold*").out
    assert "[bold]key[/bold]" in out
    assert "[link=x]y[/link]" in out
