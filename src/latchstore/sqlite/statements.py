# ruff: noqa: S608 (all names in the statements are constants of this package)
"""The SQL statements that read and write entries.

Thread safety: constants.
"""

from __future__ import annotations


def _rows(count: int, columns: int, more: str = "") -> str:
    """Return question marks for rows."""
    return ", ".join([f"({', '.join('?' * columns)}{more})"] * count)


#: The columns of an entry; and with them the key and the number of the row.
COLUMNS = "data, metadata, created, modified, revision"
ROW = f"{COLUMNS}, entries.key, entries.rowid"

#: The same without reading the data.
WITHOUT_DATA = "NULL, metadata, created, modified, revision, entries.key, entries.rowid"

REVISION = "SELECT revision FROM about"
REVISION_AND_COUNT = "SELECT revision, entries FROM about"
COUNT = "SELECT entries FROM about"
KEYS = "SELECT key FROM entries"
REVISIONS = "SELECT key, revision FROM entries"
DATA = "SELECT data FROM entries WHERE key = ?"
ENTRY = f"SELECT {COLUMNS} FROM entries WHERE key = ?"
CANDIDATES = f"SELECT {WITHOUT_DATA} FROM entries"
ORDERED_BY_FACT = CANDIDATES
ORDERED_BY_ITEM = f"SELECT {WITHOUT_DATA} FROM items CROSS JOIN entries ON entries.key = items.key"

#: A number of rows after a given one.
PAGE = f"SELECT {ROW} FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?"

#: The row of a key if it exists, the revision of the last commit, and the indexes.
BEFORE = (
    "SELECT data, metadata, created, modified, entries.revision, key, entries.rowid, about.revision, names "
    "FROM about, indexed LEFT JOIN entries ON key = ?"
)
BEFORE_MANY = "SELECT revision, names FROM about, indexed"
INSERT = f"INSERT INTO entries ({COLUMNS}, key) VALUES (?, ?, ?, ?, ?, ?)"
#: The same for `AT_ONCE` rows: SQLite takes less time for a row of a statement than for a statement.
AT_ONCE = 33
INSERT_MANY = f"INSERT INTO entries ({COLUMNS}, key) VALUES {_rows(AT_ONCE, 6)}"
UPDATE = "UPDATE entries SET data = ?, metadata = ?, created = ?, modified = ?, revision = ? WHERE rowid = ?"
#: For rows that exist; the 0 stands for a key, which is not changed, and no key is a number.
UPDATE_MANY = (
    f"INSERT INTO entries ({COLUMNS}, rowid, key) VALUES {_rows(AT_ONCE, 6, ', 0')} "
    "ON CONFLICT (rowid) DO UPDATE SET data = excluded.data, metadata = excluded.metadata, "
    "created = excluded.created, modified = excluded.modified, revision = excluded.revision"
)
DELETE = "DELETE FROM entries WHERE rowid = ?"
ADVANCE = "UPDATE about SET revision = ?, entries = entries + ?"

#: The numbers of keys that one statement reads; each statement is prepared once.
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 900)

#: The entries of a number of keys, NULL being none. hot path: for IN, SQLite would first sort the keys.
ENTRIES = {
    size: f"SELECT {ROW} FROM (VALUES {_rows(size, 1)}) CROSS JOIN entries ON entries.key = column1"
    for size in SIZES
}

#: A change, with all columns of the log.
ADD_TO_LOG = f"INSERT INTO log VALUES ({', '.join('?' * 13)})"
#: The same without the last columns, which are NULL for most changes: each value takes time. For one change,
#: and for `AT_ONCE`.
_MORE_TO_LOG = (
    "INSERT INTO log (id, key, data, metadata, created, modified, "
    "old_data, old_metadata, old_modified, old_revision) VALUES "
)
ADD_MORE_TO_LOG = _MORE_TO_LOG + _rows(1, 10)
ADD_MANY_TO_LOG = _MORE_TO_LOG + _rows(AT_ONCE, 10)
READ_LOG = "SELECT * FROM log WHERE id >= ? AND id < ? ORDER BY id"
LOGGED = "SELECT key, modified, author FROM log WHERE id = ?"
TRIM_LOG = "DELETE FROM log WHERE id < ?"
OLDEST = "SELECT min(id) FROM log"
CHANGED_KEYS = "SELECT DISTINCT key FROM log WHERE id >= ?"

INDEXED = "SELECT names FROM indexed"
SET_INDEXED = "UPDATE indexed SET names = ?"
ITEM_SOURCES = "SELECT key, metadata FROM entries WHERE metadata != '{}'"
ADD_ITEM = "INSERT INTO items VALUES (?, ?, ?, ?)"
REMOVE_ITEM = "DELETE FROM items WHERE name = ? AND rank = ? AND value = ? AND key = ?"
FORGET_ITEMS = "DELETE FROM items WHERE name = ?"
FIRST_ITEM = (
    "SELECT value, key FROM items WHERE name = ? AND rank = ? AND value >= ? AND value < ? "
    "ORDER BY value, key LIMIT 1"
)

#: Whether a key is a blob; SQLite orders these after all others.
ODD_KEYS = "SELECT 1 FROM entries WHERE key >= x'' LIMIT 1"

#: The keys whose item of a name has one of some values.
KEYS_WITHIN = "SELECT key FROM items WHERE name = ? AND {conditions}"
