"""Whatever happens during a save, the path has the old file or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.interrupts import Striker
from tests.saving.stores import TIMEOUT, facts, new_store

fcntl = pytest.importorskip("fcntl")

#: How often a process that saves is killed.
KILLS = int(os.environ.get("LATCHSTORE_KILLS", "24"))


def leftovers(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.unfinished"))


def kill_a_save(path: Path, generation: bytes, step: int, seconds: float) -> bool:
    """Kill a process that saves, before one of its bytecodes or after some time; was it still saving?"""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # it is not to outlive a test that fails
        store = store_of(generation)
        os.write(write, b"begun")
        with Striker(step, instead=lambda: os.kill(os.getpid(), signal.SIGKILL)):
            store.save(path)
        os.write(write, b" and over")
        while True:
            signal.pause()
    os.close(write)
    told = os.read(read, 5)
    if not step:
        threading.Event().wait(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        told += pipe.read()
    return told == b"begun"


KEYS = [f"k{number}" for number in range(5)]


def store_of(data: bytes) -> DictMemoryStore:
    store = new_store()
    store.multiset_data(KEYS, [data] * len(KEYS))
    return store


def steps_of_a_save(path: Path) -> int:
    """Return how many bytecodes a process that has just been forked needs."""
    store_of(b"0").save(path)
    with Striker(0) as striker:
        store_of(b"0").save(path)
    before = striker.executed
    with Striker(0) as striker:
        store_of(b"0")
    return before - striker.executed


@pytest.mark.timeout(180)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    """Half of them between two bytecodes of the save, half wherever they are, in SQLite for instance."""
    chance = random.Random(7)
    steps = steps_of_a_save(path)
    begun = time.monotonic()
    for _ in range(10):
        store_of(b"0").save(path)
    seconds = (time.monotonic() - begun) / 10
    generation = inside = 0
    outcomes = set()
    for kill in range(KILLS):
        step = chance.randint(1, steps) if kill % 2 else 0
        killed_inside = kill_a_save(path, b"%d" % (generation + 1), step, chance.random() * seconds)
        assert killed_inside or not step
        inside += killed_inside
        store = DictMemoryStore.load(path, EventManager())
        (found,) = {data for data, *_ in facts(store).values()}
        assert len(store) == len(KEYS)
        outcome = int(found) - generation
        assert outcome in (0, 1)
        outcomes.add(outcome if killed_inside else "over")
        generation += outcome
        for left in leftovers(path):
            left.unlink()
    assert inside >= KILLS // 2
    assert {0, 1} <= outcomes


@contextmanager
def another_process_that_locks(path: Path) -> Iterator[None]:
    """Have another process make a file and lock it as one does that writes it."""
    script = """
import fcntl, sys
with open(sys.argv[1], "xb") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1)
    print("locked", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_killed_save_has_left_is_removed_by_the_next(path: Path) -> None:
    store = new_store()
    store.save(path)
    # In the middle the unfinished file is there.
    assert kill_a_save(path, b"1", steps_of_a_save(path) // 2, 0)
    (left,) = leftovers(path)
    others = [left.with_name(f"{name}.0123456789abcdef.unfinished") for name in ("saved", "saved.sqlite2")]
    others.append(left.with_name("saved.sqlite.unfinished"))
    for other in others:
        other.touch()
    in_use = left.with_name(f"{path.name}.0123456789abcdef.unfinished")
    with another_process_that_locks(in_use):
        store.save(path)
        assert leftovers(path) == [in_use]
    store.save(path)
    assert leftovers(path) == []
    assert all(other.exists() for other in others)


def test_an_unfinished_file_that_is_removed_before_it_is_locked_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.lockf
    files: list[str] = []

    def lock_late(file: Any, operation: int, length: int) -> None:
        if operation == fcntl.LOCK_UN:
            return
        files.append(file.name)
        if len(files) == 1:
            os.unlink(file.name)
        lock(file, operation, length)
        if len(files) == 2:
            os.unlink(file.name)
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    new_store().save(path)
    assert len(set(files)) == 3
    assert leftovers(path) == []
    assert len(DictMemoryStore.load(path, EventManager())) == 0


def test_a_file_system_without_locks_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    in_use = path.with_name(f"{path.name}.0123456789abcdef.unfinished")
    in_use.touch()
    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    new_store().save(path)
    assert len(DictMemoryStore.load(path, EventManager())) == 0
    assert leftovers(path) == [in_use]


def test_many_save_to_one_path(path: Path) -> None:
    """Each file is whole, the last to finish wins, and nobody takes another's unfinished one away."""
    barrier = threading.Barrier(5)
    errors: list[BaseException] = []

    def save(number: int) -> None:
        try:
            store = store_of(b"%d" % number)
            barrier.wait(TIMEOUT)
            for _ in range(20):
                store.save(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    new_store().save(path)
    barrier.wait(TIMEOUT)
    while any(thread.is_alive() for thread in threads):
        assert len({data for data, *_ in facts(DictMemoryStore.load(path, EventManager())).values()}) <= 1
    assert errors == []
    assert leftovers(path) == []
    assert len(DictMemoryStore.load(path, EventManager())) == len(KEYS)


def test_a_file_that_is_being_made_is_no_leftover(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread replaces the same file when it is there and not yet locked."""
    removed: list[str] = []
    open_, unlink = os.open, os.unlink
    others = [new_store()]

    def open_and_be_interrupted(name: Any, flags: int, *mode: int, **options: Any) -> int:
        descriptor = open_(name, flags, *mode, **options)
        if others and flags & os.O_EXCL and str(name).endswith(".unfinished"):
            other = threading.Thread(target=others.pop().save, args=(path,))
            other.start()
            other.join(TIMEOUT)
        return descriptor

    def unlink_and_note(name: Any, **options: Any) -> None:
        removed.append(str(name))
        unlink(name, **options)

    monkeypatch.setattr(os, "open", open_and_be_interrupted)
    monkeypatch.setattr(os, "unlink", unlink_and_note)
    new_store().save(path)
    assert others == []
    assert [name for name in removed if name.endswith(".unfinished")] == []


def test_the_file_is_on_the_disk_before_it_has_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int]] = []
    flush, replace = os.fsync, os.replace

    def note_flush(descriptor: int) -> None:
        flush(descriptor)
        steps.append(("flushed", os.fstat(descriptor).st_ino))

    def note_replace(source: str, target: str) -> None:
        steps.append(("named", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_replace)
    new_store().save(path)
    file, directory = path.stat().st_ino, path.parent.stat().st_ino
    assert steps == [("flushed", file), ("named", file), ("flushed", directory)]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = new_store()
    store.save(path)
    before = path.read_bytes()
    store.from_bytes("k", b"")

    def fail(*arguments: object) -> None:
        raise OSError("on purpose")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="on purpose"):
        store.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_is_full_is_told_of_as_such(path: Path) -> None:
    script = """
import resource, sys
from latchstore import DictMemoryStore, EventManager
store = DictMemoryStore(EventManager())
store.from_bytes("k", bytes(1_000_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    store.save(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.filename == sys.argv[1])
"""
    new_store().save(path)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("OSError True\n", "")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions")
def test_permissions_and_links_stay(path: Path) -> None:
    store = new_store()
    store.save(path)
    path.chmod(0o600)
    link = path.with_name("link")
    link.symlink_to(path.name)
    store.from_bytes("k", b"")
    store.save(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(DictMemoryStore.load(path, EventManager())) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_replaced(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="is not a regular file"):
        new_store().save(path)
    assert path.is_fifo()
    assert os.listdir(path.parent) == [path.name]
