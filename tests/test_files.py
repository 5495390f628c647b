"""Every operation on files with every obstacle: what fails is one OSError, and the old file is whole."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreFormatError, StoreMapping, StoreView
from latchstore.engine.loading import read_file

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_linux = pytest.mark.skipif(
    not hasattr(fcntl, "F_OFD_GETLK"), reason="needs locks that can be asked for"
)

TIMEOUT = 20.0
NOBODY = 65534


def store_of(data: bytes = b"new", count: int = 1) -> DictMemoryStore:
    store = DictMemoryStore(EventManager())
    store.multiset_data([f"k{number}" for number in range(count)], [data] * count)
    return store


def load(path: Path) -> bytes:
    return DictMemoryStore.load(path, EventManager()).to_bytes("k0")


def from_file(path: Path) -> bytes:
    store = store_of()
    store.from_file("k0", path)
    return store.to_bytes("k0")


WRITING: dict[str, Callable[[Any], object]] = {
    "save": lambda path: store_of().save(path),
    "to_file": lambda path: store_of().to_file("k0", path),
}
READING: dict[str, Callable[[Any], object]] = {"load": load, "from_file": from_file}

writing = pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
reading = pytest.mark.parametrize("read", READING.values(), ids=READING)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved file, alone in its directory."""
    path = tmp_path / "file"
    store_of(b"old").save(path)
    return path


@pytest.fixture
def shared(path: Path) -> Iterator[Path]:
    """The same in a directory that every user may write to."""
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o777)
    try:
        yield Path(shutil.copy2(path, directory))
    finally:
        shutil.rmtree(directory)


def in_child(action: Callable[[], object], user: int | None = None) -> str:
    """Return what an action of a child process returns or raises, as text; of another user's, if named."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(TIMEOUT))
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            answer = repr(action())
        except BaseException as error:
            answer = type(error).__name__
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script until it prints a line, and on to its end when the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline()
        yield running
        running.stdin.close()


# -- obstacles -------------------------------------------------------------------------------------


def missing_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path.parent}/missing/file"


def file_for_a_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path}/file"


def trailing_slash(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path}/"


def trailing_dot(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path}/."


def new_with_a_slash(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path}2/"


def directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return str(path.parent)


def no_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return ""


def long_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{path.parent}/{'n' * 256}"


def link_to_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    link = path.with_name("link")
    link.symlink_to(link)
    return str(link)


ANYWHERE = (
    missing_directory,
    file_for_a_directory,
    trailing_slash,
    trailing_dot,
    new_with_a_slash,
    directory,
    no_name,
    long_name,
    link_to_itself,
)


def failing(name: str, number: int) -> Callable[[Path, pytest.MonkeyPatch], str]:
    """Return an obstacle: a call of the system that fails."""

    def obstacle(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(number, os.strerror(number), *arguments[:1])

        monkeypatch.setattr(os, name, fail)
        return str(path)

    obstacle.__name__ = f"{name}_{errno.errorcode[number]}"
    return obstacle


WHILE_WRITING = (
    failing("replace", errno.EBUSY),  # a file that is a mount point
    failing("replace", errno.EPERM),  # immutable, or another's in a directory like /tmp
    failing("replace", errno.EXDEV),
    failing("fsync", errno.EIO),
    failing("fsync", errno.ENOSPC),
    failing("open", errno.EROFS),
    failing("open", errno.EACCES),
    failing("open", errno.ENOSPC),
)


@writing
@pytest.mark.parametrize("obstacle", [*ANYWHERE, *WHILE_WRITING], ids=lambda obstacle: obstacle.__name__)
def test_what_cannot_be_written_is_one_error_and_the_old_file_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], object], obstacle: Any
) -> None:
    where = obstacle(path, monkeypatch)
    before = {each: each.lstat().st_ino for each in path.parent.iterdir()}
    content = path.read_bytes()
    with monkeypatch.context(), pytest.raises(OSError, match=r"\[Errno \d+\] ") as caught:
        write(where)
    monkeypatch.undo()
    assert caught.value.filename == where
    assert caught.value.filename2 is None
    assert path.read_bytes() == content
    assert {each: each.lstat().st_ino for each in path.parent.iterdir()} == before


@reading
@pytest.mark.parametrize("obstacle", ANYWHERE, ids=lambda obstacle: obstacle.__name__)
def test_what_cannot_be_read_is_one_error(
    path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[str], object], obstacle: Any
) -> None:
    where = obstacle(path, monkeypatch)
    with pytest.raises(OSError, match=r"\[Errno \d+\] ") as caught:
        read(where)
    assert caught.value.filename == where


@writing
def test_a_full_disk(path: Path, write: Callable[[Path], object]) -> None:
    script = """
import resource, sys
from latchstore import DictMemoryStore, EventManager
store = DictMemoryStore(EventManager())
store.from_bytes("k0", bytes(1_000_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    store.save(sys.argv[1]) if sys.argv[2] == "save" else store.to_file("k0", sys.argv[1])
except OSError as error:
    print(error.errno is not None and error.filename == sys.argv[1])
"""
    content = path.read_bytes()
    name = next(name for name, each in WRITING.items() if each is write)
    with process(script, path, name) as running:
        assert running.wait(TIMEOUT) == 0
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_a_load_of_what_is_no_regular_file_neither_waits_nor_opens_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, *arguments: object) -> int:
        raise AssertionError(f"{path} is opened")

    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    monkeypatch.setattr(os, "open", refuse)
    for each in (pipe, Path(os.devnull), Path("/dev/zero")):
        with pytest.raises(OSError, match="is no regular file"):
            load(each)


def test_from_file_reads_a_pipe_to_its_end(path: Path) -> None:
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(bytes(100_000),))
    writer.start()
    assert from_file(pipe) == bytes(100_000)
    writer.join(TIMEOUT)


@writing
def test_the_longest_name(path: Path, write: Callable[[Path], object]) -> None:
    longest = os.pathconf(path.parent, "PC_NAME_MAX")
    for name in ("n" * longest, "\u00fc" * (longest // 2), "\u20ac" * (longest // 3)):
        write(path.with_name(name))
        write(path.with_name(name))
        assert sorted(os.listdir(path.parent)) == sorted([path.name, name])
        path.with_name(name).unlink()


# -- permissions -----------------------------------------------------------------------------------


@contextmanager
def first_modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[os.stat_result]]:
    """Note what files are at the moment at which they are made."""
    found: list[os.stat_result] = []
    opened = os.open

    def note(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        descriptor = opened(path, flags, mode, **options)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
            found.append(os.fstat(descriptor))
        return descriptor

    with monkeypatch.context() as context:
        context.setattr(os, "open", note)
        yield found


@writing
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o444, 0o400, 0o666, 0o000, 0o755])
def test_nobody_may_read_the_new_file_who_may_not_read_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], mode: int, mask: int
) -> None:
    path.chmod(mode)
    before = os.umask(mask)
    try:
        with first_modes(monkeypatch) as found:
            write(path)
    finally:
        os.umask(before)
    (first,) = found
    assert stat.S_IMODE(first.st_mode) & 0o177 & ~mode == 0
    if mask == 0o022 and mode & 0o022 == 0:
        assert stat.S_IMODE(first.st_mode) == mode | 0o600
    assert stat.S_IMODE(path.stat().st_mode) == mode


@needs_root
@writing
def test_the_owner_stays_and_no_group_has_the_new_file_before_it_is_the_right_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    os.chown(path, NOBODY, 12_345)
    path.chmod(0o4660)
    with first_modes(monkeypatch) as found:
        write(path)
    assert stat.S_IMODE(found[0].st_mode) & 0o077 == 0
    new = path.stat()
    assert (new.st_uid, new.st_gid, stat.S_IMODE(new.st_mode)) == (NOBODY, 12_345, 0o4660)


@needs_root
@writing
def test_the_group_of_the_directory_may_not_read_it_either(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    path.chmod(0o660)
    os.chown(path.parent, 0, 12_345)
    path.parent.chmod(0o2777)
    with first_modes(monkeypatch) as found:
        write(path)
    assert stat.S_IMODE(found[0].st_mode) & 0o070 == 0
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o660)


@needs_root
@writing
def test_another_user_replaces_a_file_whose_owner_cannot_be_kept(
    shared: Path, write: Callable[[Path], object]
) -> None:
    shared.chmod(0o6644)
    assert in_child(lambda: write(shared), NOBODY) == "None"
    new = shared.stat()
    # It is not run as its new owner.
    assert (new.st_uid, stat.S_IMODE(new.st_mode)) == (NOBODY, 0o644)
    assert os.listdir(shared.parent) == [shared.name]


@needs_root
@writing
def test_a_file_of_ones_own_that_is_read_only_is_replaced(
    shared: Path, write: Callable[[Path], object]
) -> None:
    os.chown(shared, NOBODY, NOBODY)
    shared.chmod(0o444)
    assert in_child(lambda: write(shared), NOBODY) == "None"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o444


@needs_root
@writing
@pytest.mark.parametrize("mode", [0o755, 0o1777], ids=oct)
def test_where_another_user_may_not_write(shared: Path, write: Callable[[Path], object], mode: int) -> None:
    content = shared.read_bytes()
    shared.parent.chmod(mode)
    assert in_child(lambda: write(shared), NOBODY) == "PermissionError"
    assert shared.read_bytes() == content
    assert os.listdir(shared.parent) == [shared.name]


@needs_root
@reading
def test_what_another_user_may_not_read(shared: Path, read: Callable[[Path], object]) -> None:
    shared.chmod(0o600)
    assert in_child(lambda: read(shared), NOBODY) == "PermissionError"


@needs_root
def test_one_who_may_read_alone_can_load(shared: Path) -> None:
    shared.chmod(0o444)
    shared.parent.chmod(0o555)
    assert in_child(lambda: load(shared), NOBODY) == "b'old'"


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
    with pytest.raises(OSError, match="or was when that was killed"):
        load(path)
    assert sqlite_content(path) == {b"old" * 500}
    assert load(path) == b"old" * 500


# -- locks -----------------------------------------------------------------------------------------

EXCLUSIVE = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
file.execute("COMMIT")
"""


@needs_linux
def test_a_file_that_is_locked_is_waited_for_and_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with process(EXCLUSIVE, path) as running:
        with pytest.raises(OSError, match="is being changed by another program") as caught:
            load(path)
        assert not isinstance(caught.value, StoreFormatError)
        assert caught.value.filename == str(path)
        assert 0 < sum(pauses) < 5

        def end(seconds: float) -> None:
            monkeypatch.undo()
            if running.stdin is not None:
                running.stdin.close()
            running.wait(TIMEOUT)

        monkeypatch.setattr(time, "sleep", end)
        assert load(path) == b"old"


@needs_linux
def test_a_file_that_this_process_is_changing_is_busy_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="is being changed"):
        load(path)
    file.execute("COMMIT")
    assert load(path) == b"old"
    file.close()


def test_a_file_that_changes_while_it_is_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat
    calls = 0

    def change(descriptor: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        if calls in (1, 3, 5):
            os.utime(path, ns=(calls, calls))
        return status(descriptor)

    monkeypatch.setattr(os, "fstat", change)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert load(path) == b"old"
    assert calls > 5


@contextmanager
def sqlite_lock(path: Path) -> Iterator[None]:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN IMMEDIATE")
    yield
    file.close()


@contextmanager
def sqlite_shared_lock(path: Path) -> Iterator[None]:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN")
    file.execute("SELECT * FROM about").fetchone()
    yield
    file.close()


@contextmanager
def record_lock(path: Path) -> Iterator[None]:
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Return whether another process finds a lock on the file."""

    def lock() -> None:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return in_child(lock) == "BlockingIOError"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@needs_linux
@pytest.mark.parametrize("lock", [sqlite_lock, sqlite_shared_lock, record_lock])
@pytest.mark.parametrize("operation", [*READING, "save", "to_file"])
def test_the_locks_of_this_process_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, lock: Any
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    before = descriptors()
    # What is written to is another file: the old one stays locked under its other name.
    other = path.with_name("other")
    os.link(path, other)
    with lock(path):
        assert is_locked(other)
        for _ in range(10):
            try:
                {**READING, **WRITING}[operation](path)
            except OSError:
                # A lock of one's own on all of the file is one on what SQLite locks.
                assert (operation, lock) == ("load", record_lock)
            assert is_locked(other)
        assert descriptors() <= before + 3
    assert not is_locked(other)
    from_file(other)
    assert descriptors() == before


@needs_linux
def test_the_locks_that_are_taken_when_a_new_file_has_its_name_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = store_of(path.read_bytes())
    replaced = os.replace
    held: list[sqlite3.Connection] = []

    def lock_at_once(source: str, target: str) -> None:
        replaced(source, target)
        file = sqlite3.connect(target, isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        held.append(file)

    monkeypatch.setattr(os, "replace", lock_at_once)
    saved.to_file("k0", path)
    assert is_locked(path)
    held[0].close()
    assert not is_locked(path)


# -- what a file can hold --------------------------------------------------------------------------

COLUMNS = "'k' AS key, x'00' AS data, '{}' AS metadata, 1.0 AS created, 1.0 AS modified, 1 AS revision"

SCHEMAS = {
    "a view": f"DROP TABLE entries; CREATE VIEW entries AS SELECT {COLUMNS}",
    "a view without end": (
        "DROP TABLE entries; CREATE VIEW entries AS WITH RECURSIVE c(x) AS "
        f"(SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {COLUMNS} FROM c WHERE x < 0"
    ),
    "a view about it": "DROP TABLE about; CREATE VIEW about AS SELECT 1 AS revision, 1 AS entries",
    "a view beside": "CREATE VIEW more AS SELECT * FROM entries",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM about; END",
    "a generated column": (
        "DROP TABLE about; CREATE TABLE about (revision INTEGER, entries INTEGER AS (revision)); "
        "INSERT INTO about VALUES (1)"
    ),
    "one more generated column": (
        "ALTER TABLE entries ADD COLUMN more AS (hex(zeroblob(500000000))) VIRTUAL"
    ),
    "one more column": "ALTER TABLE entries ADD COLUMN more",
    "a check": (
        "DROP TABLE about; CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL, "
        "CHECK (revision < 5)); INSERT INTO about VALUES (1, 1)"
    ),
    "no rowid": (
        "DROP TABLE entries; CREATE TABLE entries (key PRIMARY KEY NOT NULL, data BLOB NOT NULL, "
        "metadata TEXT NOT NULL, created REAL NOT NULL, modified REAL NOT NULL, revision INTEGER NOT NULL) "
        "WITHOUT ROWID"
    ),
    "a clock that is a view": "CREATE VIEW clock AS SELECT 1.0 AS reading",
    "sizes that are a view": "CREATE VIEW sizes AS SELECT 'k0' AS key, 2 AS size",
}


def change(path: Path, sql: str) -> None:
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript(sql)
    file.close()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_with_something_else_in_place_of_our_tables_is_refused(path: Path, name: str) -> None:
    change(path, SCHEMAS[name])
    with pytest.raises(StoreFormatError):
        load(path)


def test_pages_that_point_to_each_other_are_read_once(path: Path) -> None:
    store_of(b"data" * 100, 300).save(path)
    content = bytearray(path.read_bytes())
    size = 4096
    interior = [at for at in range(size, len(content), size) if content[at] == 0x05]
    for at in interior:
        content[at + 8 : at + 12] = (at // size + 1).to_bytes(4, "big")
    path.write_bytes(content)
    assert interior
    with pytest.raises(StoreFormatError):
        load(path)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE notes (text); INSERT INTO notes VALUES ('a')",
        "CREATE INDEX by_time ON entries (modified, json_extract(metadata, '$.n'))",
        "ANALYZE",
        "VACUUM",
        "PRAGMA page_size = 512; VACUUM",
        "PRAGMA page_size = 65536; VACUUM",
        "PRAGMA auto_vacuum = FULL; VACUUM",
        "PRAGMA journal_mode = WAL",
        "UPDATE entries SET created = 5, modified = 7",
        "INSERT INTO entries VALUES ('z', x'', '{}', 1, 1, 1); UPDATE about SET entries = entries + 1",
        "ALTER TABLE entries RENAME TO other; ALTER TABLE other RENAME TO entries",
    ],
)
def test_what_others_may_do_with_a_file(path: Path, sql: str) -> None:
    store_of(b"old" * 2000, 20).save(path)
    change(path, sql)
    assert load(path) == b"old" * 2000


def test_a_load_runs_no_sql(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it gives nothing up to a busy thread at each row, and runs nothing that stands in the file."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("sqlite3 is used")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert load(path) == b"old"


def test_a_save_puts_many_rows_into_one_statement(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            statements.append(sql)
            return super().execute(sql, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
    )
    store_of(b"old", 5_000).save(path)
    assert len(statements) < 10
    statements.clear()
    # Few bytes wait, however large the values are.
    store_of(bytes(5_000_000), 10).save(path)
    assert len(statements) >= 5
    assert len(DictMemoryStore.load(path, EventManager())) == 10


def test_a_load_can_be_interrupted_at_every_call(path: Path) -> None:
    store_of(b"old", 30).save(path)
    before = descriptors()
    calls = 0
    while True:
        left = calls

        def strike(frame: Any, event: str, argument: object) -> None:
            nonlocal left
            if event == "call":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt

        calls += 1
        left = calls
        sys.setprofile(strike)
        try:
            read_file(str(path))
        except KeyboardInterrupt:
            continue
        finally:
            sys.setprofile(None)
        break
    assert calls > 100
    assert descriptors() == before


# -- codecs ----------------------------------------------------------------------------------------

ran: list[str] = []


class Hostile:
    def __reduce__(self) -> Any:
        return ran.append, ("code",)


VIEWS: dict[str, Callable[[DictMemoryStore, Any], Any]] = {
    "mapping": lambda store, codec: store.mapping(codec),
    "mapping of a snapshot": lambda store, codec: store.snapshot().mapping(codec),
    "StoreMapping": StoreMapping,
    "StoreView": StoreView,
    "StoreView of a snapshot": lambda store, codec: StoreView(store.snapshot(), codec),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_was_loaded_is_unpickled_only_if_that_is_asked_for(path: Path, view: Any) -> None:
    data = pickle.dumps(Hostile())
    store_of(data).save(path)
    loaded = DictMemoryStore.load(path, EventManager())
    assert view(loaded, None)["k0"] == data
    assert list(view(loaded, None).values()) == [data]
    assert dict(view(loaded, None)) == {"k0": data}
    assert ran == []
    store = store_of(pickle.dumps([1]))
    assert view(store, None)["k0"] == [1]
    store.save(path)
    assert view(DictMemoryStore.load(path, EventManager()), "pickle")["k0"] == [1]


def test_transactions_of_a_loaded_store_do_not_unpickle(path: Path) -> None:
    loaded = DictMemoryStore.load(path, EventManager())
    with loaded.transaction() as transaction:
        assert transaction.mapping()["k0"] == b"old"
        with loaded.transaction() as inner:
            assert inner.mapping().pop("k0") == b"old"
    with pytest.raises(ValueError, match="no codec was named"):
        loaded.mapping()["k0"] = [1]
    loaded.mapping("json")["k0"] = [1]
    assert loaded.mapping("json")["k0"] == [1]
