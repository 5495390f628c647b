"""The demo: what it loads and what it skips, that each of its checks can fail, and what the user sees."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreSetEvent, StringValue, Value, demo
from latchstore.__main__ import main
from latchstore.demo import checks, disk, files, report, screen, work

CHECKS = ["stored", "values", "queries", "retag", "events", "counts", "disk"]
ESCAPE = "\x1b"
OLD = 1_500_000_000

#: Runs the demo on these arguments: exit code, standard output, standard error.
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _all_threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        # rich tells its thread to end, and does not wait for that.
        thread.join(20)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small directory; ``.py`` is the most common suffix."""
    root = tmp_path / "tree"
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "a.py").write_bytes(b"a = 1\n")
    (root / "b.py").write_bytes(b"b = 2\n" * 1000)
    (root / "sub" / "c.py").write_bytes(b"c = 3\n")
    (root / "sub" / "d.txt").write_bytes("grün".encode())
    (root / "sub" / "deeper" / "e.bin").write_bytes(bytes(range(256)) * 300)
    (root / "empty.txt").write_bytes(b"")
    (root / "README").write_bytes(b"no suffix")
    for path in root.rglob("*"):
        os.utime(path, (OLD, OLD))
    return root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["demo", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def failed(out: str) -> list[str]:
    """The names of the failed checks; the table and the last line must agree."""
    names = re.findall(r"^  (\w+) +FAILED  ", out, re.MULTILINE)
    last = out.splitlines()[-1]
    assert last == (f"FAILED: {', '.join(names)}" if names else "All checks passed.")
    assert re.findall(r"^  (\w+) +(?:ok|FAILED)  ", out, re.MULTILINE) == CHECKS
    return names


def figure(out: str, name: str) -> str:
    match = re.search(rf"^  {name} +(.*)$", out, re.MULTILINE)
    assert match, out
    return match[1]


def explanation(out: str, name: str) -> str:
    match = re.search(rf"^  {name} +(?:ok|FAILED)  +(.*)$", out, re.MULTILINE)
    assert match, out
    return match[1]


def use(monkeypatch: pytest.MonkeyPatch, store: type[DictMemoryStore]) -> None:
    monkeypatch.setattr(demo, "DictMemoryStore", store)


def spy(monkeypatch: pytest.MonkeyPatch) -> list[DictMemoryStore]:
    """Collect the stores that the demo makes."""
    made: list[DictMemoryStore] = []

    class Spied(DictMemoryStore):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    use(monkeypatch, Spied)
    return made


def is_reader() -> bool:
    return threading.current_thread().name.startswith("reader")


# -- a run that goes well -------------------------------------------------------------------------


def test_all_is_well(tree: Path, run: Run) -> None:
    code, out, err = run(tree)
    assert (code, err, failed(out)) == (0, "", [])
    assert out.startswith(f"Loading {tree}\n")
    assert figure(out, "files") == "7 loaded, 0 skipped"
    assert figure(out, "bytes") == "0.1 MB"
    assert figure(out, "retag").startswith("3 .py in one transaction, ")
    assert figure(out, "events") == "10"
    most, second, *others = figure(out, "suffixes").removeprefix("4: ").split(", ")
    assert (most, second, sorted(others)) == ("3 retagged .py", "2 .txt", ["1 .bin", "1 without suffix"])


def test_the_store_has_data_and_metadata(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spy(monkeypatch)
    assert run(tree)[0] == 0
    (store,) = made
    assert store.to_bytes("sub/c.py") == b"c = 3\n"
    assert store.get_metadata("sub/c.py") == {
        "path": str(tree / "sub" / "c.py"),
        "suffix": "retagged .py",
        "size": 6,
        "mtime": OLD,
        "sha256": hashlib.sha256(b"c = 3\n").hexdigest(),
    }
    assert store.info()["closed"] is True


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_any_number_of_threads(threads: int, tree: Path, run: Run) -> None:
    code, out, _ = run(tree, "--writers", threads, "--readers", threads)
    assert (code, failed(out)) == (0, [])
    plural = "" if threads == 1 else "s"
    assert figure(out, "load").endswith(f", {threads} writer{plural}")
    assert figure(out, "reads").endswith(f", {threads} reader{plural}")


def test_an_empty_directory(tmp_path: Path, run: Run) -> None:
    code, out, err = run(tmp_path)
    assert (code, err, failed(out)) == (0, "", [])
    assert figure(out, "files") == "0 loaded, 0 skipped"
    assert "there is nothing to retag" in out


def test_many_files(tmp_path: Path, run: Run) -> None:
    for number in range(300):
        (tmp_path / f"{number}.{'abc'[number % 3]}").write_bytes(b"%d" % number * number)
    code, out, _ = run(tmp_path)
    assert (code, failed(out)) == (0, [])
    assert figure(out, "events") == "400"


def test_the_standard_library_is_the_default(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tree / "site-packages"
    packages.mkdir()
    (packages / "module.py").write_bytes(b"")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tree)}.__getitem__)
    code, out, _ = run()
    assert code == 0
    assert out.startswith(f"Loading {tree} (without site-packages)\n")
    assert figure(out, "files") == "7 loaded, 0 skipped"
    assert figure(run(tree)[1], "files") == "8 loaded, 0 skipped"


# -- wrong usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"), [("nothing", "No such file or directory"), ("a.py", "Not a directory")]
)
def test_no_directory(name: str, reason: str, tree: Path, run: Run) -> None:
    assert run(tree / name) == (2, "", f"latchstore demo: {tree / name}: {reason}\n")


@pytest.mark.parametrize("option", ["--writers", "--readers", "--max-bytes-per-file"])
@pytest.mark.parametrize("number", ["0", "-1", "many", ""])
def test_bad_numbers(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", f"{option}={number}"])
    assert stop.value.code == 2
    assert f"error: argument {option}: " in capsys.readouterr().err


# -- files that are not like the others -----------------------------------------------------------


def test_what_is_no_readable_file_is_skipped(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open = builtins.open

    def watched_open(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(os.path.basename(path))
        if path.endswith("secret.py"):
            raise PermissionError(13, "Permission denied", path)
        if path.endswith("gone.py"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real_open(path, *args, **kwargs)

    (tree / "secret.py").write_bytes(b"?")
    (tree / "gone.py").write_bytes(b"?")
    (tree / "broken.py").symlink_to("nowhere.py")
    (tree / "self.py").symlink_to("self.py")
    (tree / "loop").symlink_to(tree)
    os.mkfifo(tree / "pipe.py")
    (tree / "to-pipe.py").symlink_to("pipe.py")
    (tree / "to-file.py").symlink_to("a.py")
    monkeypatch.chdir(tree)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.py")
    monkeypatch.setattr(files, "open", watched_open, raising=False)
    monkeypatch.setattr(report, "NAMES_SHOWN", 100)

    code, out, err = run(tree)
    assert (code, err, failed(out)) == (0, "", [])
    assert figure(out, "files") == "8 loaded, 8 skipped"
    assert "Skipped 8 of 16 files:\n" in out
    for line in [
        "secret.py: no permission",
        "gone.py: vanished",
        "broken.py: broken link",
        "self.py: link to itself",
        "loop: link to a directory, not followed",
        "pipe.py: no regular file but a pipe",
        "to-pipe.py: no regular file but a pipe",
        "socket.py: no regular file but a socket",
    ]:
        assert f"\n  {line}\n" in out
    assert not {"pipe.py", "to-pipe.py", "socket.py", "broken.py"} & set(opened)
    assert "to-file.py" in opened


def test_only_a_few_names_are_shown(tmp_path: Path, run: Run) -> None:
    for number in range(7):
        (tmp_path / f"{number}.py").symlink_to("nowhere")
    code, out, _ = run(tmp_path)
    assert code == 0
    assert "Skipped 7 of 7 files:\n  0.py: broken link\n" in out
    assert "  4.py: broken link\n  ... and 2 more\n" in out


def test_a_directory_that_cannot_be_listed(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real_scandir = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out, _ = run(tree)
    assert (code, failed(out)) == (0, [])
    assert figure(out, "files") == "4 loaded, 1 skipped"
    assert "  sub: no permission\n" in out


def test_the_directory_itself_cannot_be_listed(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run(tree) == (2, "", f"latchstore demo: {tree}: Permission denied\n")


def test_a_pipe_that_takes_the_place_of_a_file_does_not_block(tree: Path) -> None:
    # Between the look at the file and its opening: then it is opened, but without waiting.
    os.mkfifo(tree / "pipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", lambda path: os.lstat(tree / "a.py"))
        with pytest.raises(files.UnreadableError, match="no regular file but a pipe"):
            files.read_file(str(tree / "pipe"), 1000)


def test_files_that_are_too_large_are_skipped(tree: Path, run: Run) -> None:
    code, out, _ = run(tree, "--max-bytes-per-file", 6000)
    assert (code, failed(out)) == (0, [])
    assert figure(out, "files") == "6 loaded, 1 skipped"
    assert "  sub/deeper/e.bin: larger than 6,000 bytes\n" in out


@pytest.mark.parametrize(("limit", "data"), [(10, b"0123456789"), (9, None)])
def test_a_file_that_is_larger_than_it_says(limit: int, data: bytes | None, tmp_path: Path) -> None:
    # As those in /proc are, and those that grow.
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[6] = 4
        return os.stat_result(fields)

    def stat(path: str) -> os.stat_result:
        fields = list(os.lstat(path))
        fields[6] = 4
        return os.stat_result(fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        patch.setattr(os, "stat", stat)
        if data is None:
            with pytest.raises(files.UnreadableError, match="larger than 9 bytes"):
                files.read_file(str(path), limit)
        else:
            assert files.read_file(str(path), limit)[0] == data


def test_names_that_are_no_text(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spy(monkeypatch)
    try:
        (tree / os.fsdecode(b"caf\xe9.py")).write_bytes(b"latin")
        (tree / os.fsdecode(b"\x1b[31m\n\xff")).symlink_to("nowhere")
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    code, out, err = run(tree)
    assert (code, err, failed(out)) == (0, "", [])
    assert made[0].to_bytes("caf\udce9.py") == b"latin"
    assert "\n  \\x1b[31m\\n\\xff: broken link\n" in out


# -- files that change meanwhile ------------------------------------------------------------------


def meddle(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Change files between the load and the comparison."""
    real = checks.RetagWatch.retag

    def retag(self: checks.RetagWatch) -> float:
        change()
        return real(self)

    monkeypatch.setattr(checks.RetagWatch, "retag", retag)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b"longer than before"), "other content now"),
        (lambda path: path.write_bytes(b"A = 1\n"), "other content now"),
        (lambda path: path.write_bytes(b"x" * 100_000), "larger than 80,000 bytes"),
        (lambda path: path.unlink(), "vanished"),
        (replace_by_pipe, "no regular file but a pipe"),
    ],
)
def test_a_file_that_changed_is_reported(
    change: Callable[[Path], object],
    reason: str,
    tree: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meddle(monkeypatch, lambda: change(tree / "a.py"))
    code, out, _ = run(tree, "--max-bytes-per-file", 80_000)
    assert (code, failed(out)) == (0, [])
    assert f"Changed on disk since the load: 1 file, not compared:\n  a.py: {reason}\n" in out
    assert "6 files the same on disk" in out


def test_a_file_that_was_only_touched_is_compared(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddle(monkeypatch, lambda: os.utime(tree / "a.py"))
    code, out, _ = run(tree)
    assert code == 0
    assert "7 files the same on disk" in out


def test_a_file_that_changes_while_it_is_compared(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.read_file

    def read_file(path: str, limit: int) -> tuple[bytes, os.stat_result]:
        data, status = real(path, limit)
        if path.endswith("a.py") and threading.current_thread().name.startswith("comparer"):
            Path(path).write_bytes(b"after the status was taken")
            data = b"half"
        return data, status

    monkeypatch.setattr(disk, "read_file", read_file)
    code, out, _ = run(tree)
    assert (code, failed(out)) == (0, [])
    assert "  a.py: other content now\n" in out


# -- every check can fail -------------------------------------------------------------------------


class LosesKey(DictMemoryStore):
    """Loses one key, but only when it lists them."""

    def query_keys(self, **kwargs: Any) -> Iterator[str]:
        return (key for key in super().query_keys(**kwargs) if kwargs or key != "a.py")


class MakesUpKey(DictMemoryStore):
    def query_keys(self, **kwargs: Any) -> Iterator[str]:
        return iter([*super().query_keys(**kwargs), *([] if kwargs else ["made-up"])])


class CountsWrongly(DictMemoryStore):
    def __len__(self) -> int:
        return super().__len__() + 1


class OtherBytes(DictMemoryStore):
    def get(self, key: str) -> Value:
        value = super().get(key)
        return StringValue(bytes(value.size), value.metadata) if key == "a.py" else value


class OtherLength(DictMemoryStore):
    def get(self, key: str) -> Value:
        value = super().get(key)
        return StringValue(b"", value.metadata) if key == "a.py" else value


class HidesValue(DictMemoryStore):
    def get(self, key: str) -> Value:
        if key == "a.py":
            raise KeyError(key)
        return super().get(key)


Answer = list[tuple[str, dict[str, Any]]]


class Meddling(DictMemoryStore):
    """Changes the answers of queries, but like any store fixes them at the call."""

    def meddle(self, answer: Answer) -> Answer:
        """Change the answer to a query without terms."""
        return answer

    def meddle_terms(self, answer: Answer) -> Answer:
        """Change the answer to a query for a suffix."""
        return answer

    def query(
        self, select: Iterable[str] | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        answer = list(super().query(select, **kwargs))
        return iter(self.meddle_terms(answer) if kwargs else self.meddle(answer))


class AnswersTooMuch(Meddling):
    def meddle_terms(self, answer: Answer) -> Answer:
        return [*answer, ("other.c", {"suffix": ".c"})]


class AnswersOldMetadata(Meddling):
    def meddle_terms(self, answer: Answer) -> Answer:
        return [(key, metadata | {"suffix": ".old"}) for key, metadata in answer]


class AnswersTooLittle(Meddling):
    def meddle_terms(self, answer: Answer) -> Answer:
        return []


class Half(Meddling):
    """Shows readers one file as if it had been retagged, and the others as they are."""

    def meddle(self, answer: Answer) -> Answer:
        new = {"suffix": "retagged .py"}
        return [(key, new if is_reader() and key == "a.py" else metadata) for key, metadata in answer]


class LosesOneMeanwhile(Meddling):
    """Shows readers one file too few."""

    def meddle(self, answer: Answer) -> Answer:
        return [item for item in answer if item[0] != "a.py" or not is_reader()]


class DirtyRead(Meddling):
    """Shows readers what is not yet committed."""

    changed = False

    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        super().multiupdate_metadata(keys, metadatas)
        self.changed = True

    def meddle(self, answer: Answer) -> Answer:
        if not self.changed or not is_reader():
            return answer
        new = {"suffix": "retagged .py"}
        return [(key, new if metadata["suffix"] == ".py" else metadata) for key, metadata in answer]


class StaleRead(Meddling):
    """Shows readers for ever what they saw first."""

    seen: Answer | None = None

    def meddle(self, answer: Answer) -> Answer:
        if not is_reader():
            return answer
        if self.seen is None:
            self.seen = answer
        return list(self.seen)


class Blocks(DictMemoryStore):
    """Lets readers wait for the end of a transaction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.free = threading.Event()
        self.free.set()

    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        self.free.clear()
        super().multiupdate_metadata(keys, metadatas)

    def transaction(self, *args: Any, **kwargs: Any) -> Any:
        return self.freeing(super().transaction(*args, **kwargs))

    @contextmanager
    def freeing(self, transaction: AbstractContextManager[Any]) -> Iterator[Any]:
        try:
            with transaction as entered:
                yield entered
        finally:
            self.free.set()

    def query(
        self, select: Iterable[str] | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if is_reader() and not kwargs:
            assert self.free.wait(30)
        return super().query(select, **kwargs)


class CorruptsBytes(DictMemoryStore):
    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        return super().to_bytes(key)[::-1]


class LosesBytes(DictMemoryStore):
    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        if key == "a.py":
            raise KeyError(key)
        return super().to_bytes(key)


@pytest.mark.parametrize(
    ("store", "name", "problem"),
    [
        (LosesKey, "stored", "a.py was loaded, but is not in the store"),
        (MakesUpKey, "stored", "made-up is in the store, but was not loaded"),
        (CountsWrongly, "stored", "the store has 7 keys, and says that it has 8"),
        (OtherBytes, "values", "a.py does not have the sha256 that its metadata says"),
        (OtherLength, "values", "a.py has 0 bytes, its metadata says 6"),
        (HidesValue, "values", "a.py was stored, but cannot be read"),
        (AnswersTooMuch, "queries", " finds other.c"),
        (AnswersOldMetadata, "queries", " finds "),
        (AnswersTooLittle, "queries", " does not find it"),
        (Half, "retag", "a reader saw 2 of .py and 1 of retagged .py at once"),
        (LosesOneMeanwhile, "retag", "a reader saw 2 of .py and 0 of retagged .py at once"),
        (DirtyRead, "retag", "a reader saw the change before it was committed"),
        (StaleRead, "retag", "a reader did not see the change after it was committed"),
        (Blocks, "retag", "readers were blocked for 0.01 s during a transaction"),
        (CorruptsBytes, "disk", " is not what was stored"),
        (LosesBytes, "disk", "a.py is not in the store"),
    ],
)
def test_a_store_that_is_broken(
    store: type[DictMemoryStore],
    name: str,
    problem: str,
    tree: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, store)
    if store is Blocks:
        monkeypatch.setattr(checks, "PATIENCE", 0.01)
    code, out, err = run(tree)
    assert (code, err, failed(out)) == (1, "", [name])
    assert problem in explanation(out, name)


def test_events_out_of_order(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.SuffixCounter.hear

    def hear(self: checks.SuffixCounter, event: StoreSetEvent) -> None:
        if event.key == "a.py" and event.action == "set":
            event.revision = 1_000_000
        real(self, event)

    monkeypatch.setattr(checks.SuffixCounter, "hear", hear)
    code, out, _ = run(tree, "--writers", 1)
    assert (code, failed(out)) == (1, ["events"])
    assert "was heard after a later one" in explanation(out, "events")


@pytest.mark.parametrize(("times", "heard"), [(0, 8), (2, 12)])
def test_events_lost_and_doubled(
    times: int, heard: int, tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checks.SuffixCounter.hear

    def hear(self: checks.SuffixCounter, event: StoreSetEvent) -> None:
        for _ in range(times if event.metadata["suffix"] == ".txt" else 1):
            real(self, event)

    monkeypatch.setattr(checks.SuffixCounter, "hear", hear)
    code, out, _ = run(tree)
    assert (code, failed(out)) == (1, ["events", "counts"])
    assert f"{heard} events were heard of 10 changes" in out
    assert f"the listener counts {2 * times} of '.txt', a query 2" in out


def test_the_listener_counts_wrongly(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.SuffixCounter.counts
    monkeypatch.setattr(checks.SuffixCounter, "counts", lambda self: real(self) | {".bin": 5})
    code, out, _ = run(tree)
    assert (code, failed(out)) == (1, ["counts"])
    assert "the listener counts 5 of '.bin', a query 1" in out


def misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loader read something else than the file holds."""
    real = files.read_file

    def read_file(path: str, limit: int) -> tuple[bytes, os.stat_result]:
        data, status = real(path, limit)
        if path.endswith("a.py") and threading.current_thread().name.startswith("writer"):
            data = data[::-1]
        return data, status

    monkeypatch.setattr(disk, "read_file", read_file)


def test_the_file_differs_though_it_has_not_changed(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread(monkeypatch)
    code, out, _ = run(tree)
    assert (code, failed(out)) == (1, ["disk"])
    assert explanation(out, "disk") == "a.py differs from the file"


def test_a_file_just_written_may_have_changed_within_a_tick_of_the_clock(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread(monkeypatch)
    future = 2 * 10**9
    os.utime(tree / "a.py", (future, future))
    code, out, _ = run(tree)
    assert (code, failed(out)) == (0, [])
    assert "  a.py: other content now\n" in out


def test_a_reader_that_skips_values(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.Reader, "check_value", lambda self, key: None)
    code, out, _ = run(tree)
    assert (code, failed(out)) == (1, ["values"])
    assert "0 values were read, but 7 stored" in out


def test_several_problems_are_counted() -> None:
    check = checks.Check("name", "all well")
    assert (check.result, check.explanation) == ("ok", "all well")
    check.fail("first")
    assert (check.result, check.explanation) == ("FAILED", "first")
    check.fail("second")
    assert check.explanation == "first (and 1 more)"


# -- the listener ---------------------------------------------------------------------------------


def test_the_counter_follows_every_kind_of_change() -> None:
    check = checks.Check("events")
    counter = checks.SuffixCounter(check)
    with DictMemoryStore(EventManager()) as store:
        counter.connect(store)
        store.set("a", (b"", {"suffix": ".py"}))
        store.set("b", (b"", {"suffix": ".py"}))
        store.set("c", (b"", {}))
        store.flush()
        assert counter.counts() == {".py": 2, "": 1}
        with store.transaction("both"):
            store.update_metadata("a", {"suffix": ".c"})
            store.delete("b")
        store.set("c", (b"", {"suffix": ".c"}))
        store.flush()
        assert counter.counts() == {".c": 2}
        store.delete("a")
        store.flush()
        assert counter.counts() == {".c": 1}
    assert counter.events == 7
    assert check.passed


def test_the_counter_notices_an_event_of_the_wrong_class() -> None:
    check = checks.Check("events")
    counter = checks.SuffixCounter(check)
    old = StringValue(b"", {"suffix": ".py"})
    counter.hear(StoreSetEvent(None, key="a", value=old, previous=old, revision=1))
    assert check.explanation == (
        "<StoreSetEvent key='a' action='set' revision=1> does not say right whether the key is new"
    )


# -- errors in threads ----------------------------------------------------------------------------


class WriterBreaks(DictMemoryStore):
    def set(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("boom\nbang")


class ReaderBreaks(DictMemoryStore):
    def get(self, key: str) -> Value:
        raise RuntimeError("boom\nbang")


class WatcherBreaks(DictMemoryStore):
    def query(
        self, select: Iterable[str] | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if not kwargs:
            raise RuntimeError("boom\nbang")
        return super().query(select, **kwargs)


class ComparerBreaks(DictMemoryStore):
    def to_bytes(self, key: str, buffer_size: int = 1) -> bytes:
        raise RuntimeError("boom\nbang")


class MainThreadBreaks(DictMemoryStore):
    def flush(self, timeout: float | None = 1, revision: int | None = None) -> None:
        raise RuntimeError("boom\nbang")


class CommitBreaks(DictMemoryStore):
    def multiupdate_metadata(self, keys: Iterable[str], metadatas: Iterable[Mapping[str, Any]]) -> None:
        raise RuntimeError("boom\nbang")


@pytest.mark.parametrize(
    ("store", "who"),
    [
        (WriterBreaks, r"writer_\d: "),
        (ReaderBreaks, r"reader_\d: "),
        (WatcherBreaks, r"reader_\d: "),
        (ComparerBreaks, r"comparer_\d: "),
        (MainThreadBreaks, ""),
        (CommitBreaks, ""),
    ],
)
def test_an_error_in_a_thread_fails_the_run(
    store: type[DictMemoryStore], who: str, tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, store)
    code, out, err = run(tree)
    assert code == 1
    assert out == f"Loading {tree}\n"
    assert re.fullmatch(f"latchstore demo: {who}RuntimeError: boom bang\n", err)


def test_an_error_in_a_listener_fails_the_run(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlucky(checks.SuffixCounter):
        def _count(self, *args: Any) -> None:
            raise RuntimeError("boom\nbang")

    monkeypatch.setattr(work, "SuffixCounter", Unlucky)
    code, out, err = run(tree)
    assert (code, failed(out), err) == (1, ["events", "counts"], "")
    assert "a listener failed: RuntimeError: boom bang" in explanation(out, "events")


# -- interruptions --------------------------------------------------------------------------------


def interrupt(*args: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (work, "find_files"),
        (screen.Screen, "_draw"),
        (checks.RetagWatch, "wait_for_looks"),
        (DictMemoryStore, "multiupdate_metadata"),
        (work.Demo, "_check_stored"),
        (screen.Screen, "show"),
    ],
)
def test_control_c(owner: Any, name: str, tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spy(monkeypatch)
    monkeypatch.setattr(owner, name, interrupt)
    code, _, err = run(tree)
    assert (code, err) == (130, "latchstore demo: interrupted\n")
    (store,) = made
    assert store.info()["closed"] is True


def test_control_c_for_real(tmp_path: Path) -> None:
    # The reader sends the signal when it has got the one file.
    (tmp_path / "file").write_bytes(b"")
    program = (
        "import os, signal, sys\n"
        "from latchstore.__main__ import main\n"
        "from latchstore.demo.checks import Reader\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "Reader.check_value = lambda self, key: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(main(['demo', sys.argv[1], '--readers', '1']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "latchstore demo: interrupted\n")


# -- what the user sees ---------------------------------------------------------------------------


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "100", **more}


def test_a_process_of_its_own(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latchstore", "demo", str(tree)],
        capture_output=True,
        encoding="utf-8",
        env=environment(FORCE_COLOR="1", TERM="xterm-256color"),
        check=False,
    )
    assert (done.returncode, done.stderr, failed(done.stdout)) == (0, "", [])
    assert ESCAPE not in done.stdout
    assert "\r" not in done.stdout


def test_output_into_a_closed_pipe(tree: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "latchstore", "demo", str(tree)],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_piped_output_is_plain_even_if_rich_is_there(tree: Path, run: Run) -> None:
    assert type(screen.make_screen()) is screen.Screen
    _, out, _ = run(tree)
    assert ESCAPE not in out
    assert "\r" not in out


def test_a_terminal_without_rich(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    assert type(screen.make_screen()) is screen.PlainTerminal
    assert main(["demo", str(tree)]) == 0
    written = terminal.getvalue()
    assert ESCAPE not in written
    assert "Loading [########################] 100% 7/7" in written
    assert "Comparing [########################] 100% 7/7" in written
    # Each line of the bar goes over the one before, and in the end nothing is left of it.
    bars = [line for line in written.split("\n") if "[####" in line]
    for line in bars:
        assert line.split("\r")[-1].strip() in ("", f"Loading {tree}")
    assert max(len(part) for line in bars for part in line.split("\r")) < 100


def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    with screen.PlainTerminal().progress("Loading", 2, lambda: "a long note") as advance:
        advance()
        advance()
    assert {len(part) for part in terminal.getvalue().split("\r")} == {0, 19}


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_a_real_terminal(tree: Path) -> None:
    program = (
        "import sys; sys.modules['rich'] = None\n"
        "from latchstore.__main__ import main; sys.exit(main(['demo', sys.argv[1]]))"
    )
    master, slave = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tree)], stdout=slave, env=environment()
        )
    finally:
        os.close(slave)
    written = b""
    with open(master, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(65536):
                written += part
        except OSError:
            pass  # Linux tells the end in this way
    assert process.wait() == 0
    assert ESCAPE.encode() not in written
    assert b"[########################] 100% 7/7" in written
    assert b"All checks passed." in written


def test_a_terminal_with_rich(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    (tree / "[red]x[").symlink_to("nowhere")
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    use(monkeypatch, CorruptsBytes)
    assert type(screen.make_screen()) is screen.RichTerminal
    assert main(["demo", str(tree)]) == 1
    written = terminal.getvalue()
    assert ESCAPE in written
    assert "[red]x[: broken link" in written
    assert re.search(r"disk +\x1b\[1;31mFAILED\x1b\[0m", written)
    assert re.search(r"counts +\x1b\[32mok *\x1b\[0m", written)
    assert "FAILED: disk" in written
