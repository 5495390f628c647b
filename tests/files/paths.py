"""The operations on files, and who else has the file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager

TIMEOUT = 20.0


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


def directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return str(path.parent)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def change(path: Path, sql: str) -> None:
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript(sql)
    file.close()
