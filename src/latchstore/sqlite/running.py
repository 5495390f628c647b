"""Runs statements on a connection, and converts SQLite's errors to those of the system and the store.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from latchstore.contract.errors import LockTimeoutError, StoreFormatError
from latchstore.sqlite.connections import Connection, Connections

T = TypeVar("T")

_NUMBERS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
    sqlite3.SQLITE_TOOBIG: errno.EFBIG,
}


#: The purpose of the first call, which may find that the file is not a database.
OPENING = "opening"


def failure_of(error: sqlite3.Error, path: str, purpose: str) -> Exception:
    """Return the exception to raise in place of an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error  # an error of the module itself: a mistake in how it is called
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE):
        return error
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockTimeoutError(f"{purpose}: another program keeps {path!r} locked: {error}")
    if primary == sqlite3.SQLITE_NOTADB:
        return StoreFormatError(f"{path!r} is not a SQLite database")
    if primary == sqlite3.SQLITE_CORRUPT and purpose == OPENING:
        return StoreFormatError(f"{path!r} is damaged: {error}")
    number = _NUMBERS.get(primary, errno.EIO)
    message = os.strerror(number) if primary in _NUMBERS else str(error)
    return OSError(number, message, path)


def take(connections: Connections, purpose: str) -> Connection:
    """Return a connection that no other thread uses."""
    try:
        return connections.take()
    except sqlite3.Error as error:
        raise failure_of(error, connections.path, purpose) from error


def run(connections: Connections, purpose: str, function: Callable[[sqlite3.Connection], T]) -> T:
    """Call a function with a connection that no other thread uses.

    A transaction that the function has begun and not committed is rolled back.
    """
    connection = take(connections, purpose)
    try:
        return function(connection)
    except sqlite3.Error as error:
        raise failure_of(error, connections.path, purpose) from error
    finally:
        connection.rollback()  # one call in C: after it, an exception leaves no lock of SQLite held
        connections.give(connection)


def note(
    connections: Connections, purpose: str, function: Callable[[sqlite3.Connection], T], wait: bool = True
) -> T:
    """Call a function that changes data other than entries, in a short transaction of SQLite.

    The caller need not be the owner, as no transaction of SQLite is open while a user's block runs. The disk
    is not waited for: after a power failure the change may be missing, unless a later commit of the store was
    made.

    Parameters
    ----------
    wait : bool
        Whether to wait for the end of another such transaction or commit.

    Raises
    ------
    LockTimeoutError
        If it does not end in time.
    """
    connection = take(connections, purpose)
    # If an exception comes between these calls, the connection is not given back, so nobody uses it.
    ((synchronous,),) = connection.execute("PRAGMA synchronous")
    ((timeout,),) = connection.execute("PRAGMA busy_timeout")
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        if not wait:
            connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("BEGIN IMMEDIATE")
        result = function(connection)
        connection.execute("COMMIT")
        return result
    except sqlite3.Error as error:
        raise failure_of(error, connections.path, purpose) from error
    finally:
        connection.rollback()  # one call in C: as in `run`
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
        connections.give(connection)
