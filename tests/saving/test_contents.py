"""A store is saved at one commit, whole, and comes back as it was."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import Cache, CompactedError, DictMemoryStore, EventManager, StoreEvent, StoreSetEvent
from latchstore.engine.inspection import check
from tests.saving.stores import TIMEOUT, facts, new_store

fcntl = pytest.importorskip("fcntl")

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


@pytest.mark.parametrize("odd", [None, 1_500], ids=["plain", "one that is not"])
@pytest.mark.parametrize("size", [10, 10_000])
def test_many_rows_are_written_and_read(path: Path, size: int, odd: int | None) -> None:
    """More than are made, inserted and read together, in rows and in bytes."""
    store = new_store()
    count = 6_001 if size == 10 else 2_001
    with store.transaction():
        for number in range(count):
            metadata = {"n": [number]} if number == odd else {"n": number, "kind": "x" * (number % 50)}
            store.set(f"k{number}", (b"%d" % number * (number % size), metadata))
    store.save(path)
    loaded = DictMemoryStore.load(path, EventManager())
    assert facts(loaded) == facts(store)
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert file.execute("SELECT entries FROM about").fetchone() == (count,)
    assert file.execute("SELECT key FROM entries ORDER BY rowid").fetchall() == [
        (key,) for key in facts(store)
    ]
    file.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [("\u00fc", b"x"), ("\ud800", b"x"), ("k", 2**40), ("k", "\u20ac"), ("k", 1.5)],
    ids=["plain", "a surrogate", "an int", "text", "a float"],
)
def test_any_key_and_object_is_saved_beside_plain_ones(path: Path, key: str, value: object) -> None:
    store = new_store()
    Cache[Any](store, codec="reference")[key] = value
    store.set("beside", (b"", {"n": 1}))
    store.save(path)
    loaded = DictMemoryStore.load(path, EventManager())
    found = {name: loaded.get(name).content for name in loaded.glob("*")}
    assert found == {key: value, "beside": b""}
    assert type(found[key]) is type(value)


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
    with pytest.raises(ValueError, match=r"^key str 'the key': 4009 bytes cannot be saved, the maximum is"):
        store.save(path)
    assert DictMemoryStore.load(path, EventManager()).to_bytes("k") == bytes(3_997)


@pytest.mark.parametrize(
    "value", [(1, 2), b"bytes", {1, 2}, float("inf"), {1: 2}, [[(1,)]], {"a": {"b": 1j}}, {"$n": 1}], ids=repr
)
def test_metadata_that_json_would_change_is_saved_with_tags(path: Path, value: object) -> None:
    store = new_store()
    store.set("the key", (b"", {"fine": 1, "the item": value}))
    store.save(path)
    loaded = DictMemoryStore.load(path, EventManager()).get_metadata("the key")
    assert loaded == {"fine": 1, "the item": value}
    assert type(loaded["the item"]) is type(value)


def test_in_the_first_format_there_are_no_tags(path: Path) -> None:
    store = new_store()
    store.set("k", (b"", {"n": 0}))
    store.save(path)
    file = sqlite3.connect(path, isolation_level=None)
    file.executescript("""UPDATE entries SET metadata = '{"n": {"$tuple": [1]}}'; PRAGMA user_version = 1""")
    file.close()
    loaded = DictMemoryStore.load(path, EventManager())
    assert loaded.get_metadata("k") == {"n": {"$tuple": [1]}}
    loaded.save(path)
    assert DictMemoryStore.load(path, EventManager()).get_metadata("k") == {"n": {"$tuple": [1]}}


@pytest.mark.parametrize("value", [bytearray(b"x"), [range(2)], {1: int}, (range(2),)], ids=repr)
def test_metadata_of_other_types_is_refused(path: Path, value: object) -> None:
    store = new_store()
    store.save(path)
    before = path.read_bytes()
    store.set("the key", (b"", {"fine": 1, "the item": value}))
    with pytest.raises(
        TypeError, match=r"^key 'the key': the metadata item 'the item' cannot be stored, as it has"
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


def test_a_sqlite_that_cannot_give_the_bytes_of_a_database_saves_as_well(path: Path) -> None:
    """`serialize` is missing where SQLite was built without it."""
    script = """
import sqlite3, sys
from functools import partial
from latchstore import DictMemoryStore, EventManager

class Connection(sqlite3.Connection):
    @property
    def serialize(self):
        raise AttributeError("serialize")

sqlite3.connect = partial(sqlite3.connect, factory=Connection)
store = DictMemoryStore(EventManager())
store.set("k", (b"data", {"kind": 1}))
store.save(sys.argv[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert DictMemoryStore.load(path, EventManager()).to_bytes("k") == b"data"
