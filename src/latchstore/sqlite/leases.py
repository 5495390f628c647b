"""Leases: one process of all loads a missing key, and its result counts while it holds the lease.

1. A lease is a row of ``loads``, written in a short transaction of SQLite. Its token is larger than that of
   every earlier lease, and the commit that stores the loaded value checks it (fencing).
2. A commit that sets or deletes the key ends the lease, by a trigger (``books.py``). So a load that began
   before is not stored after it, whichever process made the change.
3. A lease ends when the loaded value is stored or the load has failed, when its process has ended, and
   `SECONDS` after it was taken: then the next process that requests the key ends it. Processes of another
   process namespace, as in containers, cannot be checked: their leases end by time only.
4. A thread that waits for another process's lease polls. A thread that has leases itself writes into their
   rows for which key it waits, and then follows the waits: of the threads of a circle, the last one to write
   finds it.

Thread safety: any thread may call any method.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Mapping

from latchstore.delivery.waiting import Waiters
from latchstore.engine.bounded import circle_error
from latchstore.engine.processes import is_running, this_process
from latchstore.engine.processes import name_of as name_of_process
from latchstore.engine.revocations import Covers, Revocation, Revocations
from latchstore.sqlite.connections import Connections
from latchstore.sqlite.rows import name_of, stored_key
from latchstore.sqlite.running import note, run

#: Seconds after which a lease ends, even if its process is still loading.
SECONDS = 30.0

#: Seconds between two polls of a waiting thread.
_LOOK_AGAIN = 0.005

_CLEAN = "DELETE FROM loads WHERE until <= ?"
_FIND = "SELECT token, process, until FROM loads WHERE key = ?"
_TAKE = "INSERT OR REPLACE INTO loads (key, tags, process, thread, until) VALUES (?, ?, ?, ?, ?)"
_HAS_SOME = "SELECT 1 FROM loads WHERE process = ? AND thread = ? LIMIT 1"
_AWAIT = "UPDATE loads SET awaits = ? WHERE process = ? AND thread = ?"
_AWAITED_BY = "SELECT process, thread, awaits FROM loads WHERE key = ? AND until > ?"
_END = "DELETE FROM loads WHERE token = ?"
_END_OWN = "DELETE FROM loads WHERE token = ? AND process = ?"
_END_KEY = "DELETE FROM loads WHERE key = ?"
_ALL = "SELECT token, key, tags FROM loads"


class Leases:
    """The leases of a file, for the caches of this process.

    Parameters
    ----------
    connections : Connections
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._revocations = Revocations()

    def take(self, wanted: Collection[tuple[str, Iterable[str]]]) -> dict[str, int]:
        """Take the leases of those keys that are not leased; return the tokens.

        Parameters
        ----------
        wanted : collection of str and iterable of str
            Keys, each with the tags that its entry will have.
        """
        rows = [(key, stored_key(key), json.dumps(sorted(tags))) for key, tags in wanted]
        me, now = this_process(), time.time()

        def taken(connection: sqlite3.Connection) -> dict[str, int]:
            tokens: dict[str, int] = {}
            connection.execute(_CLEAN, (now,))
            for key, stored, tags in rows:
                found = connection.execute(_FIND, (stored,)).fetchone()
                if found is None or not is_running(found[1]):
                    row = (stored, tags, me, threading.get_ident(), now + SECONDS)
                    cursor = connection.execute(_TAKE, row)
                    tokens[key] = int(cursor.lastrowid or 0)
            return tokens

        return note(self._connections, "taking a lease", taken) if rows else {}

    def is_held(self, key: str, token: int) -> bool:
        """Return whether the lease with this token is valid."""
        found = self._find(key)
        # A forked child of a loader has the token as well, but no lease.
        return found is not None and found[:2] == (token, this_process())

    def holder(self, key: str) -> str | None:
        """Return the process that holds the lease of a key; None if none does, or it has ended."""
        found = self._find(key)
        if found is None or found[2] <= time.time() or not is_running(found[1]):
            return None
        return name_of_process(found[1])

    def _find(self, key: str) -> tuple[int, str, float] | None:
        parameters = (stored_key(key),)
        found: tuple[int, str, float] | None = run(
            self._connections, "reading", lambda each: each.execute(_FIND, parameters).fetchone()
        )
        return found

    def wait(self, key: str, seconds: float) -> bool:
        """Wait until the key is not leased, at most `seconds`; return whether that is so.

        Raises
        ------
        RecursiveLoadError
            If the holder waits for a load of this thread.
        """
        me = (this_process(), threading.get_ident())
        if not run(self._connections, "reading", lambda each: each.execute(_HAS_SOME, me).fetchone()):
            return self._wait(key, seconds)
        try:
            note(self._connections, "waiting", lambda each: each.execute(_AWAIT, (stored_key(key), *me)))
            run(self._connections, "reading", lambda each: _refuse_circle(each, key, me))
            return self._wait(key, seconds)
        finally:
            # An exception here leaves an outdated row, until the load of this thread ends.
            note(self._connections, "waiting", lambda each: each.execute(_AWAIT, (None, *me)))

    def _wait(self, key: str, seconds: float) -> bool:
        return Waiters().wait(lambda: self.holder(key) is None, seconds, yields=0, look_again=_LOOK_AGAIN)

    def end(self, held: Mapping[str, int]) -> None:
        """End leases, given as keys with their tokens, that have not ended yet."""
        me = this_process()
        rows = [(token, me) for key, token in held.items() if self.is_held(key, token)]
        if rows:
            note(self._connections, "ending a lease", lambda each: each.executemany(_END_OWN, rows))

    def overtake(self, keys: Iterable[str]) -> None:
        """End the leases of keys, whoever holds them, after a change that no trigger sees."""
        stored = [(stored_key(key),) for key in keys if self._find(key) is not None]
        if stored:
            note(self._connections, "deleting", lambda each: each.executemany(_END_KEY, stored))

    def revoke(self, revocation: Revocation) -> None:
        """End leases now, and with the commit of the caller's transaction those taken meanwhile."""
        self._revocations.add(revocation)
        self._end_now([revocation.covers])

    def forget(self, revocation: Revocation) -> None:
        """Stop ending leases: the transaction has ended, or the revoking block was rolled back."""
        self._revocations.discard(revocation)

    def end_in_commit(self, connection: sqlite3.Connection) -> None:
        """End in a commit the leases that the caller's transaction has revoked."""
        revoked = self._revocations.of_caller()
        if revoked:
            _end_all(connection, revoked)

    def end_without_commit(self) -> None:
        """End the leases that the caller's transaction has revoked, if it has nothing to commit."""
        revoked = self._revocations.of_caller()
        if revoked:
            self._end_now(revoked)

    def _end_now(self, revoked: Collection[Covers]) -> None:
        if run(self._connections, "reading", lambda each: _covered(each, revoked)):
            note(self._connections, "deleting", lambda each: _end_all(each, revoked))

    def renew_in_child(self) -> None:
        """Revoke nothing, in a forked child."""
        self._revocations.renew_in_child()


def _covered(connection: sqlite3.Connection, revoked: Collection[Covers]) -> list[tuple[int]]:
    """Return the tokens of the covered leases."""
    found = []
    for token, stored, tags in connection.execute(_ALL).fetchall():
        key, of_load = name_of(stored), frozenset(json.loads(tags))
        if any(covers(key, of_load) for covers in revoked):
            found.append((token,))
    return found


def _refuse_circle(connection: sqlite3.Connection, key: str, me: tuple[str, int]) -> None:
    """Raise RecursiveLoadError if the thread that loads a key waits for one that `me` loads."""
    connection.execute("BEGIN")
    path: list[str] = []
    awaited, holder = stored_key(key), ""
    # Stops at a circle of others, which they find.
    while awaited is not None and name_of(awaited) not in path:
        path.append(name_of(awaited))
        found = connection.execute(_AWAITED_BY, (awaited, time.time())).fetchone()
        if found is None:
            return
        process, thread, awaited = found
        holder = holder or process
        if (process, thread) == me:
            raise circle_error(key, holder, path)


def _end_all(connection: sqlite3.Connection, revoked: Collection[Covers]) -> None:
    connection.executemany(_END, _covered(connection, revoked))
