"""The unfinished file of a save, and what SQLite has beside a file."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from latchstore import StoreFormatError
from tests.files.paths import TIMEOUT, WRITING, in_child, load, process, store_of, writing

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# -- the unfinished file ---------------------------------------------------------------------------


def unfinished(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.unfinished"))


@writing
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "file", "hard link", "directory"])
def test_what_others_have_put_in_its_place_is_not_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], kind: str
) -> None:
    theirs = path.with_name("theirs")
    theirs.write_bytes(b"theirs")
    place = path.with_name(f"{path.name}.{'00' * 8}.unfinished")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "file":
        place.write_bytes(b"a file")
    elif kind == "hard link":
        os.link(theirs, place)
    else:
        place.symlink_to(theirs if kind == "link" else path.with_name("nothing"))
    with process(LOCKING, place) if kind in ("file", "hard link") else open(os.devnull, "rb"):
        monkeypatch.setattr(os, "urandom", bytes)
        with pytest.raises(FileExistsError):
            write(path)
        monkeypatch.undo()
        assert load(path) == b"old"
        write(path)
    assert theirs.read_bytes() == b"theirs"
    assert unfinished(path) == [place]


LOCKING = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1)
    print("locked", flush=True)
    sys.stdin.read()
"""


@writing
def test_the_names_cannot_be_guessed(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    names: list[str] = []
    replaced = os.replace

    def note(source: str, target: str) -> None:
        names.append(source)
        replaced(source, target)

    monkeypatch.setattr(os, "replace", note)
    for _ in range(5):
        write(path)
    assert len({name.split(".")[-2] for name in names}) == 5
    assert all(len(name.split(".")[-2]) == 16 for name in names)


@writing
def test_what_a_killed_process_has_left_goes_although_its_child_runs(
    path: Path, write: Callable[[Path], object]
) -> None:
    read, tell = os.pipe()
    parent = os.fork()
    if not parent:
        signal.alarm(int(TIMEOUT))

        def fork_and_be_killed(descriptor: int) -> None:
            child = os.fork()
            if not child:
                signal.alarm(int(TIMEOUT))
                signal.pause()
            os.write(tell, b"%d" % child)
            os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = fork_and_be_killed  # type: ignore[assignment]
        write(path)
    os.waitpid(parent, 0)
    child = int(os.read(read, 20))
    os.close(read)
    os.close(tell)
    try:
        assert len(unfinished(path)) == 1
        assert load(path) == b"old"
        write(path)
        assert unfinished(path) == []
    finally:
        os.kill(child, signal.SIGKILL)


@writing
def test_what_another_thread_is_writing_is_not_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    flush = os.fsync
    written, go_on = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def flush_late(descriptor: int) -> None:
        if threading.current_thread() is slow and not written.is_set():
            written.set()
            go_on.wait(TIMEOUT)
        flush(descriptor)

    def write_slowly() -> None:
        try:
            write(path)
        except BaseException as error:
            errors.append(error)

    slow = threading.Thread(target=write_slowly)
    monkeypatch.setattr(os, "fsync", flush_late)
    slow.start()
    assert written.wait(TIMEOUT)
    (left,) = unfinished(path)
    write(path)
    assert unfinished(path) == [left]
    # Its lock is still there: another process removes nothing either.
    in_child(lambda: write(path))
    assert unfinished(path) == [left]
    go_on.set()
    slow.join(TIMEOUT)
    assert errors == []
    assert unfinished(path) == []


# -- SQLite's files beside it ----------------------------------------------------------------------


def sqlite_content(path: Path) -> set[bytes]:
    file = sqlite3.connect(path)
    try:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {data for (data,) in file.execute("SELECT data FROM entries")}
    finally:
        file.close()


VIEWER = """
import os, sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("PRAGMA cache_size = 5")
if sys.argv[2] == "wal":
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA wal_autocheckpoint = 0")
else:
    file.execute("BEGIN")
file.execute("UPDATE entries SET data = zeroblob(3000)")
print("changed", flush=True)
sys.stdin.read()
os._exit(1)
"""


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "killed"])
@pytest.mark.parametrize("kind", ["wal", "journal"])
@pytest.mark.parametrize("name", WRITING)
def test_a_viewer_of_the_old_file_does_not_change_the_new_one(
    path: Path, name: str, kind: str, alive: bool
) -> None:
    store = store_of(b"new" * 500, 100)
    store_of(b"old" * 500, 100).save(path)
    elsewhere = path.with_name("elsewhere")
    store.save(elsewhere)
    saved = store_of(elsewhere.read_bytes())
    elsewhere.unlink()

    def write() -> None:
        store.save(path) if name == "save" else saved.to_file("k0", path)

    with process(VIEWER, path, kind):
        assert len(os.listdir(path.parent)) > 1
        if alive:
            write()
            assert os.listdir(path.parent) == [path.name]
            assert load(path) == b"new" * 500
    if not alive:
        write()
    assert os.listdir(path.parent) == [path.name]
    assert load(path) == b"new" * 500
    assert sqlite_content(path) == {b"new" * 500}


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@writing
def test_a_file_of_ones_own_with_such_a_name_stays(
    path: Path, write: Callable[[Path], object], suffix: str
) -> None:
    own = Path(f"{path}{suffix}")
    own.write_bytes(b"my notes")
    write(path)
    assert own.read_bytes() == b"my notes"
    own.unlink()
    os.mkfifo(own)
    write(path)
    assert own.is_fifo()


def test_what_a_viewer_has_in_its_own_files_is_not_obeyed(path: Path) -> None:
    with process(VIEWER, path, "wal"):
        assert load(path) == b"old"
    assert Path(f"{path}-wal").stat().st_size
    assert load(path) == b"old"
    assert sqlite_content(path) == {bytes(3000)}


def test_what_is_half_changed_is_not_called_damaged(path: Path) -> None:
    """A viewer was killed in the middle of a change, which SQLite takes back when it opens the file."""
    store_of(b"old" * 500, 300).save(path)
    with process(VIEWER, path, "journal"):
        with pytest.raises(OSError, match="being changed by another program") as caught:
            load(path)
        assert caught.value.errno == errno.EBUSY
        assert not isinstance(caught.value, StoreFormatError)
    with pytest.raises(OSError, match="such a change was interrupted"):
        load(path)
    assert sqlite_content(path) == {b"old" * 500}
    assert load(path) == b"old" * 500
