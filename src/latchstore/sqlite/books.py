# ruff: noqa: S608 (all names in the statements are constants of this package)
"""The books of the caches on a file: weights of entries, times of expiry, and the order of eviction.

1. ``bounds`` has a row for each cache and each namespace of a cache, of any process: its keys begin with
   `prefix`. ``nodes`` has a row for each entry of each of these. The rows stay in the file.
2. Triggers on ``entries`` maintain both tables in the commit that changes an entry. So they are correct after
   each commit of any process, also of a process without a cache.
3. The limits are not in the file: each process enforces the limits of its own caches, in each of its commits
   (`evicting`).
4. The policy is SIEVE (``cache/policies.py``): `sequence` is the position in the queue, `hand` the sequence
   of the entry that was checked last. A key that some process is loading is spared if another entry can be
   evicted: its eviction would end the lease (``leases.py``).
5. A hit writes nothing. Each process collects its own hits, and its next commit records them.

Metadata written as a whole as a ``$dict`` (``contract/encoding.py``), for names that JSON cannot have, is not
inspected: such an entry is evicted only when there is no room.

Thread safety: functions of a connection in a transaction that excludes other writers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from latchstore.engine.entry_facts import EXPIRES, IDLE, METADATA_OVERHEAD, OVERHEAD, STALE, WEIGHT
from latchstore.sqlite.rows import Key

#: The next time at which an entry with an idle time is checked: at once, if its last use is unknown.
_IDLE_UNTIL = "ifnull(used + idle, -1e300)"

#: The tables, by name.
TABLES = {
    "bounds": "CREATE TABLE bounds (id INTEGER PRIMARY KEY, prefix BLOB NOT NULL UNIQUE, idle REAL, "
    "entries INTEGER NOT NULL, weight INTEGER NOT NULL, hand INTEGER NOT NULL)",
    "nodes": "CREATE TABLE nodes (bound INTEGER NOT NULL, sequence INTEGER NOT NULL, key NOT NULL, "
    "weight INTEGER NOT NULL, expires REAL, idle REAL, used REAL, visited INTEGER NOT NULL, "
    "PRIMARY KEY (bound, sequence), UNIQUE (key, bound)) WITHOUT ROWID",
    "evictions": "CREATE TABLE evictions (bound INTEGER NOT NULL, cause TEXT NOT NULL, "
    "number INTEGER NOT NULL, PRIMARY KEY (bound, cause)) WITHOUT ROWID",
    "loads": "CREATE TABLE loads (token INTEGER PRIMARY KEY AUTOINCREMENT, key NOT NULL UNIQUE, "
    "tags TEXT NOT NULL, process TEXT NOT NULL, thread INTEGER NOT NULL, until REAL NOT NULL, awaits)",
}
_INDEXES = (
    "CREATE INDEX nodes_expires ON nodes (bound, expires) WHERE expires IS NOT NULL",
    f"CREATE INDEX nodes_idle ON nodes (bound, {_IDLE_UNTIL}) WHERE idle IS NOT NULL",
)


def _is_own(row: str) -> str:
    """Return the condition that the key of a row belongs to a row of ``bounds``."""
    return f"substr(CAST({row}.key AS BLOB), 1, length(bounds.prefix)) = bounds.prefix"


def _number(row: str, name: str) -> str:
    """Return a metadata item if it is a number, as any program may write anything there; otherwise NULL."""
    item = f"{row}.metadata, '$.{name}'"
    return f"CASE WHEN json_type({item}) IN ('integer', 'real') THEN json_extract({item}) END"


def _weight(row: str) -> str:
    """Return the weight of an entry; `weight_of` computes the same."""
    item = f"{row}.metadata, '$.{WEIGHT}'"
    plain = f"{OVERHEAD} + length(CAST({row}.key AS BLOB)) + length(CAST({row}.data AS BLOB))"
    return (
        f"CASE WHEN {row}.metadata = '{{}}' THEN {plain} "
        f"WHEN json_type({item}) = 'integer' AND json_extract({item}) >= 0 THEN json_extract({item}) "
        f"ELSE {plain} + {METADATA_OVERHEAD} + length({row}.metadata) END"
    )


def _stale(row: str) -> str:
    return f"max(0, ifnull({_number(row, STALE)}, 0))"


def _expires(row: str) -> str:
    """Return the time at which an entry is evicted as expired, or NULL."""
    return f"CASE WHEN {row}.metadata != '{{}}' THEN {_number(row, EXPIRES)} + {_stale(row)} END"


def _idle(row: str) -> str:
    """Return the seconds without a use after which an entry is evicted, or NULL."""
    return (
        f"CASE WHEN {row}.metadata = '{{}}' THEN bounds.idle "
        f"WHEN json_type({row}.metadata, '$.{IDLE}') IS NULL THEN bounds.idle + {_stale(row)} "
        f"ELSE nullif({_number(row, IDLE)}, 0) + {_stale(row)} END"
    )


_WEIGHT_THEN = "ifnull((SELECT nodes.weight FROM nodes WHERE nodes.key = OLD.key AND bound = bounds.id), 0)"
_END_LOAD = "DELETE FROM loads WHERE key = {row}.key"

#: The triggers that maintain the books, by name.
TRIGGERS = {
    "cache_inserted": "CREATE TRIGGER cache_inserted AFTER INSERT ON entries BEGIN "
    "INSERT OR REPLACE INTO nodes SELECT bounds.id, "
    "(SELECT ifnull(max(sequence), 0) + 1 FROM nodes WHERE bound = bounds.id), "
    f"NEW.key, {_weight('NEW')}, {_expires('NEW')}, {_idle('NEW')}, NULL, 0 "
    f"FROM bounds WHERE {_is_own('NEW')}; "
    f"UPDATE bounds SET entries = entries + 1, weight = weight + {_weight('NEW')} WHERE {_is_own('NEW')}; "
    f"{_END_LOAD.format(row='NEW')}; END",
    "cache_updated": "CREATE TRIGGER cache_updated AFTER UPDATE ON entries BEGIN "
    f"UPDATE bounds SET weight = weight + {_weight('NEW')} - {_WEIGHT_THEN} WHERE {_is_own('NEW')}; "
    f"UPDATE nodes SET weight = {_weight('NEW')}, expires = {_expires('NEW')}, used = NULL, "
    f"idle = (SELECT {_idle('NEW')} FROM bounds WHERE bounds.id = bound) WHERE key = NEW.key; "
    f"{_END_LOAD.format(row='NEW')}; END",
    "cache_deleted": "CREATE TRIGGER cache_deleted AFTER DELETE ON entries BEGIN "
    f"UPDATE bounds SET entries = entries - 1, weight = weight - {_WEIGHT_THEN} WHERE {_is_own('OLD')}; "
    "DELETE FROM nodes WHERE key = OLD.key; "
    f"{_END_LOAD.format(row='OLD')}; END",
}

_IS_MADE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'bounds'"
_FIND_BOUND = "SELECT id, idle FROM bounds WHERE prefix = ?"
_ADD_BOUND = "INSERT INTO bounds (prefix, idle, entries, weight, hand) VALUES (?, ?, 0, 0, 0)"
_FILL = (
    "INSERT INTO nodes SELECT bounds.id, row_number() OVER (ORDER BY entries.rowid), key, "
    f"{_weight('entries')}, {_expires('entries')}, {_idle('entries')}, NULL, 0 "
    f"FROM bounds JOIN entries ON {_is_own('entries')} WHERE bounds.id = ?"
)
_COUNT = (
    "UPDATE bounds SET entries = (SELECT count(*) FROM nodes WHERE bound = id), "
    "weight = (SELECT ifnull(sum(nodes.weight), 0) FROM nodes WHERE bound = id) WHERE id = ?"
)
_OF_NODES = "SELECT key, weight, expires, idle FROM nodes WHERE bound = ? ORDER BY key"
_OF_ENTRIES = (
    f"SELECT key, {_weight('entries')}, {_expires('entries')}, {_idle('entries')} "
    f"FROM bounds JOIN entries ON {_is_own('entries')} WHERE bounds.id = ? ORDER BY key"
)
_SET_IDLE = "UPDATE bounds SET idle = ? WHERE id = ?"
_FORGET = "DELETE FROM nodes WHERE bound = ?"

_STATE = (
    "SELECT entries, weight, hand, "
    "EXISTS (SELECT 1 FROM nodes WHERE bound = id AND expires <= ?) OR EXISTS "
    f"(SELECT 1 FROM nodes WHERE bound = id AND idle IS NOT NULL AND {_IDLE_UNTIL} <= ?) "
    "FROM bounds WHERE id = ?"
)
_NEXT = (
    "SELECT sequence, key, weight, visited FROM nodes WHERE bound = ? AND sequence > ? "
    "ORDER BY sequence LIMIT 32"
)
_TAKE_BACK = "UPDATE nodes SET visited = 0 WHERE bound = ? AND sequence = ?"
# From the new end the hand returns to the old end, although the commit will add entries at the new end.
_SET_HAND = (
    "UPDATE bounds SET hand = CASE WHEN EXISTS "
    "(SELECT 1 FROM nodes WHERE bound = id AND sequence > ?) THEN ? ELSE 0 END WHERE id = ?"
)
_EXPIRED = "SELECT key, weight FROM nodes WHERE bound = ? AND expires <= ? LIMIT ?"
_IDLE_EXPIRED = (
    f"SELECT key, weight, used FROM nodes WHERE bound = ? AND idle IS NOT NULL AND {_IDLE_UNTIL} <= ? LIMIT ?"
)
_BEGIN_USE = "UPDATE nodes SET used = ? WHERE bound = ? AND key = ?"
_WEIGHT_OF = "SELECT weight FROM nodes WHERE bound = ? AND key = ?"
_HIT = "UPDATE nodes SET visited = 1 WHERE bound = ? AND key = ? AND NOT visited"
_USE = "UPDATE nodes SET visited = 1, used = max(ifnull(used, ?), ?) WHERE bound = ? AND key = ?"
_WRITTEN = "UPDATE nodes SET used = ? WHERE bound = ? AND key = ? AND idle IS NOT NULL"
_EVICTED = (
    "INSERT INTO evictions VALUES (?, ?, ?) "
    "ON CONFLICT (bound, cause) DO UPDATE SET number = number + excluded.number"
)
_EVICTIONS = "SELECT cause, number FROM evictions WHERE bound = ?"
_LOADING = "SELECT key FROM loads"
_MAY_EXPIRE = (
    "SELECT EXISTS (SELECT 1 FROM nodes WHERE bound = ? AND expires IS NOT NULL) OR EXISTS "
    f"(SELECT 1 FROM nodes WHERE bound = ? AND idle IS NOT NULL AND {_IDLE_UNTIL} < 1e301)"
)
_LAST_USE = (
    "SELECT used FROM nodes JOIN entries ON entries.key = nodes.key "
    "WHERE bound = ? AND nodes.key = ? AND revision = ?"
)


class State(NamedTuple):
    """The state of one bound, at one instant.

    Attributes
    ----------
    entries, weight, hand : int
    may_evict : int
        Whether an entry has expired, or must be checked for that.
    """

    entries: int
    weight: int
    hand: int
    may_evict: int


def open_bound(connection: sqlite3.Connection, prefix: bytes, idle: float | None) -> int:
    """Open the books for the keys with a prefix; return the number of the bound.

    Parameters
    ----------
    idle : float or None
        Seconds without a use after which an entry without its own idle time expires; the last value given
        applies to all processes.
    """
    if not connection.execute(_IS_MADE).fetchone()[0]:
        for sql in (*TABLES.values(), *_INDEXES, *TRIGGERS.values()):
            connection.execute(sql)
    found = connection.execute(_FIND_BOUND, (prefix,)).fetchone()
    number: Any
    if found is None:
        number = connection.execute(_ADD_BOUND, (prefix, idle)).lastrowid
    else:
        number, idle_then = found
        if idle_then == idle:
            return int(number)
        connection.execute(_SET_IDLE, (idle, number))
        connection.execute(_FORGET, (number,))
    connection.execute(_FILL, (number,))
    connection.execute(_COUNT, (number,))
    return int(number)


def state_of(connection: sqlite3.Connection, bound: int, now: float | None = None) -> State:
    """Return the state of a bound; with a reading of the clock, whether an entry has expired by then."""
    return State(*connection.execute(_STATE, (now, now, bound)).fetchone())


def check(connection: sqlite3.Connection, bound: int) -> None:
    """Raise AssertionError if the books do not match the entries; for tests, in one transaction."""
    nodes = connection.execute(_OF_NODES, (bound,)).fetchall()
    assert nodes == connection.execute(_OF_ENTRIES, (bound,)).fetchall()
    state = state_of(connection, bound)
    assert state[:2] == (len(nodes), sum(row[1] for row in nodes)), (state, nodes)


def evictions_of(connection: sqlite3.Connection, bound: int) -> dict[str, int]:
    """Return the number of evictions by all processes, by cause."""
    return dict(connection.execute(_EVICTIONS, (bound,)).fetchall())


def may_expire(connection: sqlite3.Connection, bound: int) -> bool:
    """Return whether any entry may expire."""
    return bool(connection.execute(_MAY_EXPIRE, (bound, bound)).fetchone()[0])


def last_use(connection: sqlite3.Connection, bound: int, key: Key, revision: int) -> float | None:
    """Return the last recorded use of an entry of this revision; None if there is none."""
    found = connection.execute(_LAST_USE, (bound, key, revision)).fetchone()
    return None if found is None else found[0]


def weight_in(connection: sqlite3.Connection, bound: int, key: Key) -> int:
    """Return the weight of an entry; 0 if the key is missing."""
    found = connection.execute(_WEIGHT_OF, (bound, key)).fetchone()
    return 0 if found is None else int(found[0])


def note_hits(connection: sqlite3.Connection, bound: int, hits: Iterable[tuple[Key, float | None]]) -> None:
    """Record uses of entries, with the time if it matters."""
    plain: list[tuple[object, ...]] = []
    timed: list[tuple[object, ...]] = []
    for key, time in hits:
        if time is None:
            plain.append((bound, key))
        else:
            timed.append((time, time, bound, key))
    connection.executemany(_HIT, plain)
    connection.executemany(_USE, timed)


def note_written(connection: sqlite3.Connection, bound: int, keys: Iterable[Key], now: float) -> None:
    """Start the idle times of entries that were written."""
    connection.executemany(_WRITTEN, [(now, bound, key) for key in keys])


def note_evictions(connection: sqlite3.Connection, bound: int, causes: dict[str, int]) -> None:
    """Count evictions."""
    connection.executemany(_EVICTED, [(bound, cause, number) for cause, number in causes.items()])


def loading(connection: sqlite3.Connection) -> set[Key]:
    """Return the keys that any process is loading."""
    return {key for (key,) in connection.execute(_LOADING)}


def expired(
    connection: sqlite3.Connection, bound: int, now: float, limit: int, thorough: bool = False
) -> list[tuple[Key, int, str]]:
    """Return some expired entries, with weights and causes; start idle times that have not started.

    Parameters
    ----------
    limit : int
        Maximum number of entries to check.
    thorough : bool
        Whether entries whose idle time is started do not count towards `limit`.
    """
    found: dict[Key, tuple[Key, int, str]] = {
        key: (key, weight, "expired") for key, weight in connection.execute(_EXPIRED, (bound, now, limit))
    }
    while len(found) < limit:
        rows = connection.execute(_IDLE_EXPIRED, (bound, now, limit - len(found))).fetchall()
        begun = [(now, bound, key) for key, _, used in rows if used is None]
        connection.executemany(_BEGIN_USE, begun)
        for key, weight, used in rows:
            if used is not None:
                found.setdefault(key, (key, weight, "idle"))
        if not begun or not thorough:
            break
    return list(found.values())


class Sieve:
    """Picks the entries to evict, one after the other.

    Parameters
    ----------
    connection : sqlite3.Connection
    bound : int
    hand : int
        The position of the last eviction.
    spared : set
        Keys to spare.
    """

    def __init__(self, connection: sqlite3.Connection, bound: int, hand: int, spared: set[Key]) -> None:
        self._connection = connection
        self._bound = bound
        self.hand: int = hand
        self._spared = spared
        self._rows: list[tuple[int, Key, int, int]] = []

    def choose(self) -> tuple[Key, int] | None:
        """Return key and weight of the next entry to evict; None if only spared keys are left."""
        beginnings = 0
        # From the hand to the new end; through all, which clears the visited flags; through all again.
        while beginnings < 3:
            while self._rows:
                sequence, key, weight, visited = self._rows.pop()
                self.hand = sequence
                if visited:
                    self._connection.execute(_TAKE_BACK, (self._bound, sequence))
                elif key not in self._spared:
                    self._spared.add(key)
                    return key, weight
            self._rows = self._connection.execute(_NEXT, (self._bound, self.hand)).fetchall()
            self._rows.reverse()
            if not self._rows:
                self.hand = 0
                beginnings += 1
        return None

    def end(self) -> None:
        """Store the position of the hand."""
        self._connection.execute(_SET_HAND, (self.hand, self.hand, self._bound))


def weight_of(key: Key, size: int, metadata: str, weight: object) -> int:
    """Return the weight of a new entry, as the triggers compute it.

    Parameters
    ----------
    key : str or bytes
    size : int
        Length of the data in bytes.
    metadata : str
        The metadata as stored in the file.
    weight : object
        The metadata item `WEIGHT`.
    """
    if type(weight) is int and 0 <= weight < 2**63:
        return weight
    more = 0 if metadata == "{}" else METADATA_OVERHEAD + len(metadata)
    return OVERHEAD + len(key if type(key) is bytes else key.encode()) + size + more  # type: ignore[union-attr]
