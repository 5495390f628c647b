"""A store is saved at one commit, whole, whatever happens meanwhile, and comes back as it was."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import CompactedError, DictMemoryStore, EventManager, StoreEvent, StoreFormatError

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
    loaded._table.check()
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


def test_inside_a_transaction_the_last_commit_is_saved(path: Path) -> None:
    store = new_store()
    store.from_bytes("k", b"committed")
    with store.transaction():
        store.from_bytes("k", b"not yet")
        store.save(path)
    assert DictMemoryStore.load(path, EventManager()).to_bytes("k") == b"committed"


def saved(path: Path) -> bytes:
    store = new_store()
    for number in range(300):
        store.set(f"k{number}", (b"x" * 100, {"n": number}))
    store.save(path)
    return path.read_bytes()


def damaged(change: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = sqlite3.connect(path, isolation_level=None)
        file.execute(change)
        file.close()

    return damage


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
    "data is text": damaged("UPDATE entries SET data = 'text' WHERE key = 'k7'"),
    "metadata is no JSON": damaged("UPDATE entries SET metadata = '{' WHERE key = 'k7'"),
    "metadata is a list": damaged("UPDATE entries SET metadata = '[]' WHERE key = 'k7'"),
    "a key is a number": damaged("UPDATE entries SET key = 7 WHERE key = 'k7'"),
    "a revision to come": damaged("UPDATE entries SET revision = 1000 WHERE key = 'k7'"),
    "a revision is text": damaged("UPDATE entries SET revision = 'x' WHERE key = 'k7'"),
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


@pytest.mark.timeout(120)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    chance = random.Random(7)
    store = new_store()
    keys = [f"k{number}" for number in range(200)]
    generation = 0
    store.multiset_data(keys, [b"0"] * len(keys))
    store.save(path)
    seen = set()
    for _ in range(KILLS):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            while True:
                generation += 1
                store.multiset_data(keys, [b"%d" % generation] * len(keys))
                os.write(write, b".")
                store.save(path)
        os.read(read, 1)
        threading.Event().wait(chance.random() * 0.008)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
        store = DictMemoryStore.load(path, EventManager())
        (found,) = {data for data, *_ in facts(store).values()}
        assert len(store) == len(keys)
        assert int(found) >= generation
        generation = int(found)
        seen.add(generation)
    assert len(seen) > 10, "most were killed before they had saved anything"
