"""Every operation on files with every obstacle: what fails is one error, and the old file is whole."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.files.paths import TIMEOUT, WRITING, directory, from_file, load, process, reading, writing

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_device_that_takes_or_gives_nothing_is_named() -> None:
    store = DictMemoryStore(EventManager())
    store.from_bytes("k", b"data")
    with pytest.raises(OSError, match="No space left") as caught:
        store.to_file("k", "/dev/full")
    assert caught.value.filename == "/dev/full"
    with pytest.raises(OSError, match="Errno") as caught:  # its first page belongs to nobody
        store.from_file("k", "/proc/self/mem")
    assert caught.value.filename == "/proc/self/mem"


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
        with pytest.raises(OSError, match="is not a regular file"):
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
