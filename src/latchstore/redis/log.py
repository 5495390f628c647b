"""The log: what each commit has changed, a stream whose ids are revisions.

Thread safety: methods that any thread may call; each sends commands of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from latchstore.contract.values import Change, deletion
from latchstore.engine.owner import TransactionInfo
from latchstore.engine.publication import Logged
from latchstore.redis.client import Server
from latchstore.redis.entries import logged_entry, name_of


class LoggedCommit(NamedTuple):
    """A commit as the log has it.

    Attributes
    ----------
    revision : int
    id : bytes
        Session and number.
    changes : list of Change
    info : TransactionInfo or None
    """

    revision: int
    id: bytes
    changes: list[Change]
    info: TransactionInfo | None


def author_of(info: TransactionInfo | None) -> bytes:
    """Return what the log has of a transaction."""
    if info is None:
        return b""
    packed: bytes = msgpack.packb(list(info), unicode_errors="surrogatepass")
    return packed


def raw_changes(packed: bytes) -> list[Any]:
    """Return the changes of a commit: key, fields before and after, cause."""
    found: list[Any] = msgpack.unpackb(packed, raw=True, strict_map_key=False)
    return found


def commit_of(stream_id: bytes, fields: Sequence[bytes]) -> LoggedCommit:
    """Return the commit that an entry of the stream is."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    changes = [_change_of(each) for each in raw_changes(found[b"c"])]
    info = None
    if found[b"a"]:
        info = TransactionInfo(*msgpack.unpackb(found[b"a"], unicode_errors="surrogatepass"))
    return LoggedCommit(int(stream_id.partition(b"-")[0]), found[b"i"], changes, info)


def _change_of(raw: Sequence[Any]) -> Change:
    stored, old, new, cause = raw
    key = name_of(stored)
    before = logged_entry(key, old) if old else None
    if not new:
        return deletion(key, before, cause.decode() if cause else None)
    return key, before, logged_entry(key, new)


class ServerLog:
    """The log of a namespace: a `CommitLog`.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._about = server.tag + b":about"
        self._log = server.tag + b":log"

    @property
    def name(self) -> str:
        return self._server.name

    def last(self) -> int:
        return int(self._server.call(b"HGET", self._about, b"revision") or 0)

    def replay(self, after: int, until: int, function: Callable[[Logged], None]) -> None:
        while after < until:
            found = self._server.call(b"XRANGE", self._log, f"{after + 1}-0", f"{until}-0", b"COUNT", 500)
            for stream_id, fields in found:
                commit = commit_of(stream_id, fields)
                function(commit)
                after = commit.revision
            if len(found) < 500:
                return

    def between(self, after: int, until: int) -> tuple[Iterable[Logged], int | None]:
        oldest = self._server.call(b"XRANGE", self._log, b"-", b"+", b"COUNT", 1)
        commits: list[Logged] = []
        self.replay(after, until, commits.append)
        return commits, int(oldest[0][0].partition(b"-")[0]) if oldest else None
