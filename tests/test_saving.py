"""A store is saved at one commit, whole, whatever happens meanwhile, and comes back as it was."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import (
    CompactedError,
    DictMemoryStore,
    EventManager,
    StoreEvent,
    StoreFormatError,
    StoreSetEvent,
)
from latchstore.engine.inspection import check
from tests.interrupts import Striker

fcntl = pytest.importorskip("fcntl")

TIMEOUT = 20.0

#: How often a process that saves is killed.
KILLS = 200


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), **options)


def facts(store: DictMemoryStore) -> dict[str, Any]:
    found = {}
    for key in store.glob("*"):
        value = store.get(key)
        data = value.data.read()
        found[key] = (data, value.metadata, value.created, value.modified, value.revision)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "saved.sqlite"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.text(st.characters()),
        st.tuples(st.binary(), st.dictionaries(st.text(st.characters()), json_values, max_size=4)),
        max_size=6,
    )
)
def test_what_is_saved_comes_back(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, tuple[bytes, dict[str, Any]]]
) -> None:
    path = tmp_path_factory.mktemp("saving") / "saved"
    store = new_store()
    store.from_bytes("gone", b"")
    store.delete("gone")
    for key, (data, metadata) in contents.items():
        store.set(key, (data, metadata))
    store.save(path)
    loaded = DictMemoryStore.load(path, EventManager(), indexes=["kind"])
    assert facts(loaded) == facts(store)
    # 1, 1.0 and True are equal: their types are looked at, too.
    assert repr(facts(loaded)) == repr(facts(store))
    check(loaded)
    assert loaded.info()["revision"] == store.info()["revision"]
    assert os.listdir(path.parent) == ["saved"]


def test_a_loaded_store_goes_on(path: Path) -> None:
    store = new_store()
    for number in range(5):
        store.set(f"k{number}", (b"", {"n": number}))
    store.save(path)
    manager = EventManager()
    heard: list[StoreEvent] = []
    manager.connect(StoreEvent, heard.append)
    loaded = DictMemoryStore.load(path, manager, indexes=["n"], history=10)
    assert list(loaded.query_keys(n=3)) == ["k3"]
    with pytest.raises(CompactedError):
        loaded.watch(since=4)
    loaded.from_bytes("new", b"")
    loaded.flush(TIMEOUT)
    assert [event.revision for event in heard] == [6]
    assert [change.revision for change in (loaded.watch(since=5).get(0),)] == [6]
    assert loaded.stats()["commits"] == 1


def test_anyone_can_open_the_file(path: Path) -> None:
    store = new_store()
    store.set("k", (b"data", {"kind": "text", "n": 1}))
    store.save(path)
    file = sqlite3.connect(path)
    row = file.execute("SELECT key, data, json_extract(metadata, '$.kind'), revision FROM entries").fetchone()
    assert row == ("k", b"data", "text", 1)
    assert file.execute("SELECT * FROM about").fetchone() == (1, 1)
    file.close()


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (CIRCLE, "is nested more than 100 deep"),
        (nested(100), "is nested more than 100 deep"),
        (10**5_000, "4300 digits"),
    ],
    ids=["circle", "deep", "long"],
)
def test_metadata_that_json_cannot_hold_is_refused(path: Path, value: object, problem: str) -> None:
    store = new_store()
    store.set("the key", (b"", {"fine": nested(99), "the item": value}))
    with pytest.raises(ValueError, match=f"^key 'the key': the metadata item 'the item' .*{problem}"):
        store.save(path)
    assert os.listdir(path.parent) == []
    store.update_metadata("the key", {"the item": None})
    store.save(path)
    assert DictMemoryStore.load(path, EventManager()).get_metadata("the key")["fine"] == nested(99)


def test_an_entry_that_is_too_large_for_sqlite_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_with_less_room(*arguments: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*arguments, **options)
        file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5_000)
        return file

    monkeypatch.setattr(sqlite3, "connect", connect_with_less_room)
    store = new_store()
    store.from_bytes("k", bytes(3_997))
    store.save(path)
    store.from_bytes("the key", bytes(4_000))
    with pytest.raises(ValueError, match=r"^key str 'the key': 4009 bytes cannot be saved, 4000 can be"):
        store.save(path)
    assert DictMemoryStore.load(path, EventManager()).to_bytes("k") == bytes(3_997)


@pytest.mark.parametrize(
    "value",
    [(1, 2), b"bytes", {1, 2}, float("nan"), float("inf"), {1: 2}, [[(1,)]], {"a": {"b": 1j}}],
    ids=repr,
)
def test_metadata_that_json_would_change_is_refused(path: Path, value: object) -> None:
    store = new_store()
    store.save(path)
    before = path.read_bytes()
    store.set("the key", (b"", {"fine": 1, "the item": value}))
    with pytest.raises(
        TypeError, match=r"^key 'the key': the metadata item 'the item' cannot be saved, as it has"
    ):
        store.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_one_commit_is_saved_while_writers_go_on(path: Path) -> None:
    store = new_store()
    keys = [f"k{number}" for number in range(50)]
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            store.multiset_data(keys, [b"%d" % number] * len(keys))

    store.multiset_data(keys, [b"0"] * len(keys))
    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(20):
        store.save(path)
        assert len({data for data, *_ in facts(DictMemoryStore.load(path, EventManager())).values()}) == 1
    over.set()
    writer.join(TIMEOUT)


@pytest.mark.parametrize("optimistic", [False, True])
def test_inside_a_transaction_the_last_commit_is_saved(path: Path, optimistic: bool) -> None:
    store = new_store()
    store.from_bytes("k", b"before")
    with store.transaction(optimistic=optimistic):
        if optimistic:
            writer = threading.Thread(target=store.from_bytes, args=("other", b"committed"))
            writer.start()
            writer.join(TIMEOUT)
        store.from_bytes("k", b"not yet")
        store.save(path)
    loaded = DictMemoryStore.load(path, EventManager())
    assert loaded.to_bytes("k") == b"before"
    assert loaded.exists("other") == optimistic
    assert store.to_bytes("k") == b"not yet"


def test_a_listener_may_save(path: Path) -> None:
    store = new_store()
    saved: list[int] = []

    def listen(event: Any) -> None:
        store.save(path)
        saved.append(event.revision)

    store.event_manager.connect(StoreSetEvent, listen)
    for number in range(3):
        store.from_bytes(f"k{number}", b"")
    store.flush(TIMEOUT)
    assert saved == [1, 2, 3]
    assert facts(DictMemoryStore.load(path, EventManager())) == facts(store)


def test_a_closed_store_can_be_saved(path: Path) -> None:
    store = new_store()
    store.from_bytes("k", b"")
    store.close()
    store.save(path)
    assert facts(DictMemoryStore.load(path, EventManager())) == facts(store)


def test_options_of_a_loaded_store(path: Path) -> None:
    new_store().save(path)
    loaded = DictMemoryStore.load(path, EventManager(), indexes=["a", "b"], lock_timeout=0.5, history=3)
    assert loaded.info()["indexes"] == ["a", "b"]
    with pytest.raises(TypeError, match="no_option"):
        DictMemoryStore.load(path, no_option=1)
    with pytest.raises(ValueError, match="lock_timeout"):
        DictMemoryStore.load(path, lock_timeout=-1)


def saved(path: Path) -> bytes:
    store = new_store()
    for number in range(300):
        store.set(f"k{number}", (b"x" * 100, {"n": number}))
    store.save(path)
    return path.read_bytes()


def damaged(change: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = sqlite3.connect(path, isolation_level=None)
        file.executescript(change)
        file.close()

    return damage


SIZES = "CREATE TABLE sizes (key PRIMARY KEY NOT NULL, size INTEGER NOT NULL)"

DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello " * 1000),
    "a random half": lambda path: path.write_bytes(
        path.read_bytes()[:20_000] + random.Random(1).randbytes(20_000)
    ),
    "another SQLite file": damaged("PRAGMA application_id = 7"),
    "a later format": damaged("PRAGMA user_version = 2"),
    "an entry is missing": damaged("DELETE FROM entries WHERE key = 'k7'"),
    "no table": damaged("DROP TABLE entries"),
    "nothing about it": damaged("DELETE FROM about"),
    "data is infinite": damaged("UPDATE entries SET data = 9e999 WHERE key = 'k7'"),
    "data is no Unicode": damaged("UPDATE entries SET data = CAST(x'FF' AS TEXT) WHERE key = 'k7'"),
    "sizes of what is data": damaged(
        f"{SIZES}; INSERT INTO sizes VALUES ('k7', 2)",
    ),
    "a size below zero": damaged(
        f"UPDATE entries SET data = 'text' WHERE key = 'k7'; {SIZES};INSERT INTO sizes VALUES ('k7', -2)"
    ),
    "metadata is no JSON": damaged("UPDATE entries SET metadata = '{' WHERE key = 'k7'"),
    "metadata is a list": damaged("UPDATE entries SET metadata = '[]' WHERE key = 'k7'"),
    "a key is a number": damaged("UPDATE entries SET key = 7 WHERE key = 'k7'"),
    "a revision to come": damaged("UPDATE entries SET revision = 1000 WHERE key = 'k7'"),
    "a revision is text": damaged("UPDATE entries SET revision = 'x' WHERE key = 'k7'"),
    "times are text": damaged("UPDATE entries SET created = 'x', modified = 'y' WHERE key = 'k7'"),
    "a time without end": damaged("UPDATE entries SET modified = 9e999 WHERE key = 'k7'"),
    "half a revision": damaged("UPDATE entries SET revision = 1.5 WHERE key = 'k7'"),
    "the last revision is text": damaged("DELETE FROM entries; UPDATE about SET revision = 'x', entries = 0"),
    "two rows about it": damaged("INSERT INTO about SELECT * FROM about"),
    "metadata is a blob": damaged("UPDATE entries SET metadata = CAST('{}' AS BLOB) WHERE key = 'k7'"),
    "metadata has nan": damaged("UPDATE entries SET metadata = '{\"n\": NaN}' WHERE key = 'k7'"),
    "metadata is too deep": damaged(
        f"UPDATE entries SET metadata = '{{\"n\": {'[' * 100_000}{']' * 100_000}}}' WHERE key = 'k7'"
    ),
    "another table of entries": damaged(
        "DROP TABLE entries; CREATE TABLE entries (key, data); INSERT INTO entries VALUES ('k', 'x')"
    ),
    "made before time": damaged("UPDATE entries SET created = -9e999 WHERE key = 'k7'"),
    "a revision that none can follow": damaged("UPDATE about SET revision = 9223372036854775807"),
    "a clock without end": damaged(
        "CREATE TABLE clock (reading REAL NOT NULL); INSERT INTO clock VALUES (9e999)"
    ),
    "another table of the clock": damaged("CREATE TABLE clock (reading); INSERT INTO clock VALUES (1.0)"),
    "metadata has a number without end": damaged(
        "UPDATE entries SET metadata = '{\"n\": 1e999}' WHERE key = 'k7'"
    ),
    "metadata has a name twice": damaged(
        "UPDATE entries SET metadata = '{\"n\": 1, \"n\": 2}' WHERE key = 'k7'"
    ),
    "metadata is deeper than what is saved": damaged(
        f"UPDATE entries SET metadata = '{{\"n\": {'[' * 101}{']' * 101}}}' WHERE key = 'k7'"
    ),
    "a key is a blob without need": damaged("UPDATE entries SET key = CAST('k7' AS BLOB) WHERE key = 'k7'"),
    "text in UTF-16": lambda path: path.write_bytes(
        path.read_bytes()[:56] + b"\0\0\0\2" + path.read_bytes()[60:]
    ),
    "another page size": lambda path: path.write_bytes(
        path.read_bytes()[:16] + b"\x03\0" + path.read_bytes()[18:]
    ),
    "made after it was changed": damaged("UPDATE entries SET created = modified + 1 WHERE key = 'k7'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_that_is_not_right_is_refused(path: Path, name: str) -> None:
    saved(path)
    DAMAGE[name](path)
    with pytest.raises(StoreFormatError, match=r"saved\.sqlite"):
        DictMemoryStore.load(path)


def test_a_later_format_is_said_to_be_one(path: Path) -> None:
    saved(path)
    DAMAGE["a later format"](path)
    with pytest.raises(
        StoreFormatError, match="has format 2, and this version of latchstore reads format 1 only"
    ):
        DictMemoryStore.load(path)


def test_a_truncated_file_is_refused(path: Path) -> None:
    whole = saved(path)
    for size in range(0, len(whole), 509):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreFormatError):
            DictMemoryStore.load(path)


def test_paths(tmp_path: Path) -> None:
    store = new_store()
    with pytest.raises(FileNotFoundError):
        DictMemoryStore.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        store.save(tmp_path / "missing" / "file")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        store.save(tmp_path)
    with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, got int 3"):
        store.save(3)  # type: ignore[arg-type]
    odd = tmp_path / "100% \u00fc?#.db"
    store.save(odd)
    assert len(DictMemoryStore.load(str(odd), EventManager())) == 0
    assert os.listdir(tmp_path) == [odd.name]


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
    with pytest.raises(OSError, match="is no regular file"):
        new_store().save(path)
    assert path.is_fifo()
    assert os.listdir(path.parent) == [path.name]
