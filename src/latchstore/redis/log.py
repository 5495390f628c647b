"""The log: the changes of each commit, in a stream whose ids are revisions.

An entry has the identification of its commit (session and number), its author, and its changes: for each key
the entries before and after. Parts that nobody reads are not decoded. An entry that represents commits which
the server has lost (``epoch.lua``) also has the revision of the entry before it, and no changes.

Thread safety: any thread may call any method; each call sends its own commands. Decoded parts are cached by
one assignment; two threads that decode the same part get equal results.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import msgpack

from latchstore.contract.values import Change, deletion
from latchstore.engine.owner import TransactionInfo
from latchstore.engine.publication import Logged
from latchstore.redis.client import Server
from latchstore.redis.entries import entry_of, name_of
from latchstore.redis.scripts import EPOCH, FOLLOW

#: Number of commits read at a time.
_AT_A_TIME = 500


class Changes(Sequence[Change]):
    """The changes of a commit, decoded at the first access.

    Parameters
    ----------
    packed : bytes
        The changes as stored in the log.
    """

    __slots__ = ("_changes", "_packed")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._changes: list[Change] | None = None

    def _decoded(self) -> list[Change]:
        changes = self._changes
        if changes is None:
            changes = self._changes = [_change_of(each) for each in raw_changes(self._packed)]
        return changes

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | list[Change]:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[Change]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __bool__(self) -> bool:
        return True  # a commit has at least one change


class LoggedCommit:
    """A commit in the log.

    Parameters
    ----------
    stream_id : bytes
    fields : sequence of bytes
        Names and values, as written by the commit script.

    Attributes
    ----------
    revision : int
    id : bytes
        Session and number.
    before : int
        Revision of the commit before it.
    changes : sequence of Change
    """

    __slots__ = ("_author", "before", "changes", "id", "revision")

    def __init__(self, stream_id: bytes, fields: Sequence[bytes]) -> None:
        self.revision: int = int(stream_id.partition(b"-")[0])
        self.id: bytes = fields[1]
        self._author = fields[3]
        stands_for_lost = len(fields) > 6
        self.before: int = int(fields[7]) if stands_for_lost else self.revision - 1
        self.changes: Sequence[Change] = () if stands_for_lost else Changes(fields[5])

    @property
    def info(self) -> TransactionInfo | None:
        """The transaction as events have it: for another process, with the process in the thread's name."""
        if not self._author:
            return None
        number, notes, thread, process, host = msgpack.unpackb(self._author, unicode_errors="surrogatepass")
        if host != _host:
            thread = f"{thread} of process {process} on {host}"
        elif process != os.getpid():
            thread = f"{thread} of process {process}"
        return TransactionInfo(number, notes, thread)


_host = socket.gethostname()


def packed_author(info: TransactionInfo | None) -> bytes:
    """Return the log's form of a transaction of this process."""
    if info is None:
        return b""
    packed: bytes = msgpack.packb([*info, os.getpid(), _host], unicode_errors="surrogatepass")
    return packed


def raw_changes(packed: bytes) -> Iterator[tuple[Any, ...]]:
    """Yield the changes of a commit: key, fields before and after, cause; see `fields_after`."""
    found = iter(msgpack.unpackb(packed, raw=True, strict_map_key=False))
    return zip(found, found, found, found, strict=True)


def fields_after(old: Sequence[bytes], new: Any, cause: Any) -> Any:
    """Return the fields of an entry after a change: the log may have only those that changed."""
    if cause is not True:
        return new
    fields = list(old)
    place = {name: number for number, name in enumerate(old[::2])}
    for name, value in zip(new[::2], new[1::2], strict=True):
        fields[2 * place[name] + 1] = value
    return fields


def _change_of(raw: Sequence[Any]) -> Change:
    stored, old, after, cause = raw
    new = fields_after(old, after, cause)
    key = name_of(stored)
    before = entry_of(key, old) if old else None
    if not new:
        return deletion(key, before, cause.decode() if cause else None)
    return key, before, entry_of(key, new)


class Place(NamedTuple):
    """A commit: its revision, and its identification, which distinguishes commits of equal revision."""

    revision: int
    id: bytes


class Ahead(NamedTuple):
    """The part of the log after a place.

    Attributes
    ----------
    is_lost : bool
        Whether the server has lost the commit of that place; deletion from the log does not count.
    last : Place
        The last commit.
    commits : list of LoggedCommit
        The next commits, or some of them if there are many.
    """

    is_lost: bool
    last: Place
    commits: list[LoggedCommit]


class ServerLog:
    """The log of a namespace: a `CommitLog`.

    Parameters
    ----------
    server : Server

    Attributes
    ----------
    name : str
        The server, for messages.
    """

    __slots__ = ("_about", "_log", "_server", "name")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._about = server.tag + b":about"
        self._log = server.tag + b":log"
        self.name: str = server.name

    def place(self) -> Place:
        """Return the place of the last commit."""
        revision, commit = self._server.call(b"HMGET", self._about, b"revision", b"id")
        return Place(int(revision or 0), commit or b"")

    def last(self) -> int:
        return self.place().revision

    def after(self, place: Place, most: int = _AT_A_TIME) -> Ahead:
        """Return the next commits after a place; an empty id matches any commit of that revision."""
        status, last, last_id, found = self._server.run(FOLLOW, place.revision, place.id, most)
        commits = [LoggedCommit(*each) for each in found]
        return Ahead(status == b"LOST", Place(int(last), last_id), commits)

    def raise_above(self, revision: int, id: bytes, seen: Sequence[Place]) -> tuple[Place, int]:
        """Raise the revisions of a server that has lost commits above one that was seen.

        Parameters
        ----------
        revision : int
            The last revision that was seen.
        id : bytes
            A new id, for the log's entry about that.
        seen : sequence of Place
            Commits, newest first.

        Returns
        -------
        last : Place
            The last commit.
        common : int
            The newest revision of those commits that the server has; -1 if it has none.
        """
        pairs = [part for place in seen for part in place]
        last, last_id, common = self._server.run(EPOCH, revision, id, *pairs)
        return Place(int(last), last_id), common

    def replay(self, after: int, until: int, function: Callable[[Logged], None]) -> None:
        for commit in self._commits(after, until):
            function(commit)

    def _commits(self, after: int, until: int) -> Iterator[LoggedCommit]:
        while after < until:
            found = self._server.call(
                b"XRANGE", self._log, b"%d-0" % (after + 1), b"%d-0" % until, b"COUNT", _AT_A_TIME
            )
            for each in found:
                commit = LoggedCommit(*each)
                yield commit
                after = commit.revision
            if len(found) < _AT_A_TIME:
                return

    def between(self, after: int, until: int) -> tuple[list[Logged], int | None]:
        commits: list[Logged] = []
        reached = after
        for commit in self._commits(after, until):
            # Not read at one instant: a commit deleted from the log meanwhile is missing here.
            if commit.before > reached:
                return commits, commit.revision
            # It represents commits that the server has lost, including the one after which the caller reads.
            if commit.before < after:
                return commits, commit.revision + 1
            commits.append(commit)
            reached = commit.revision
        return commits, after + 1 if reached == until else None
