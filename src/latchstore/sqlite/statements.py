# ruff: noqa: S608 (all names in the statements are ours)
"""The statements that entries are read and written by.

Thread safety: texts.
"""

from __future__ import annotations

#: The columns that an entry is made of, in their order.
COLUMNS = "data, metadata, created, modified, revision"

#: The same where nobody reads the data.
WITHOUT_DATA = "NULL, metadata, created, modified, revision"

REVISION = "SELECT revision FROM about"
REVISION_AND_COUNT = "SELECT revision, entries FROM about"
COUNT = "SELECT entries FROM about"
KEYS = "SELECT key FROM entries"
REVISIONS = "SELECT key, revision FROM entries"
DATA = "SELECT data FROM entries WHERE key = ?"
ENTRY = f"SELECT {COLUMNS} FROM entries WHERE key = ?"
CANDIDATES = f"SELECT key, {WITHOUT_DATA} FROM entries"
ORDERED_BY_FACT = CANDIDATES
ORDERED_BY_ITEM = (
    "SELECT entries.key, NULL, metadata, created, modified, revision "
    "FROM items CROSS JOIN entries ON entries.key = items.key"
)

#: So many rows after one.
PAGE = f"SELECT rowid, key, {COLUMNS} FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?"

#: The revision of the last commit and the indexes, with the entry of a key if there is one.
BEFORE = (
    "SELECT about.revision, names, entries.rowid, data, metadata, created, modified, entries.revision "
    "FROM about, indexed LEFT JOIN entries ON key = ?"
)
BEFORE_MANY = "SELECT revision, names FROM about, indexed"
INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)"
UPDATE = "UPDATE entries SET data = ?, metadata = ?, created = ?, modified = ?, revision = ? WHERE key = ?"
DELETE = "DELETE FROM entries WHERE key = ?"
ADVANCE = "UPDATE about SET revision = ?, entries = entries + ?"

#: How many keys one statement takes; each of these is prepared once.
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 900)

#: The entries of so many keys.
ENTRIES = {
    size: f"SELECT key, {COLUMNS} FROM entries WHERE key IN ({', '.join('?' * size)})" for size in SIZES
}

#: The first change of a commit, with what the log has of the transaction.
ADD_TO_LOG = f"INSERT INTO log VALUES ({', '.join('?' * 17)})"
#: The same for the other changes of a commit.
ADD_MORE_TO_LOG = (
    "INSERT INTO log (revision, number, key, data, metadata, created, modified, old_data, old_metadata, "
    f"old_created, old_modified, old_revision, cause) VALUES ({', '.join('?' * 13)})"
)
READ_LOG = "SELECT * FROM log WHERE revision > ? AND revision <= ? ORDER BY revision, number"
LOGGED = "SELECT key, modified, process FROM log WHERE revision = ? AND number = 0"
TRIM_LOG = "DELETE FROM log WHERE revision <= ?"
OLDEST = "SELECT min(revision) FROM log"
CHANGED_KEYS = "SELECT DISTINCT key FROM log WHERE revision > ?"

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

#: Whether there is a key that is a blob; these come after all others in SQLite's order.
ODD_KEYS = "SELECT 1 FROM entries WHERE key >= x'' LIMIT 1"

#: The keys whose item of a name has a value of some.
KEYS_WITHIN = "SELECT key FROM items WHERE name = ? AND {conditions}"
