"""What others may do with a file, and what of it is read; nothing in a file is run."""

from __future__ import annotations

import pickle
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager, StoreFormatError, StoreMapping, StoreView
from latchstore.engine.loading import read_file
from tests.files.paths import change, descriptors, load, store_of

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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
    assert len(statements) == 1  # each gives the interpreter up several times
    statements.clear()
    # Few bytes wait, however large the values are.
    store_of(bytes(5_000_000), 10).save(path)
    assert len(statements) >= 5
    assert len(DictMemoryStore.load(path, EventManager())) == 10


def test_a_load_can_be_interrupted_at_every_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", id)  # a finalizer that is struck
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
    assert calls > 50
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
