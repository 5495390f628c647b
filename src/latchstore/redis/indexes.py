"""The indexes of the namespace, and how they are made.

The server has one list of them, for all processes, with a version. A commit sends the positions of the items
that its client knows to be indexed, and the version of its list; the server refuses a commit or a query of
another version, and the client loads the list and tries again. So no index ever lacks an entry.

An index is made under the writer lease, so that no entry changes meanwhile. It is listed and used when it is
complete. The next attempt removes what an interrupted one has left.

Thread safety: `known` is replaced by one assignment. The owner makes and removes indexes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from latchstore.engine.index_list import NO_INDEXES, Index, Indexes, indexes_of
from latchstore.redis.client import Server
from latchstore.redis.entries import entry_of, name_of, stored_key
from latchstore.redis.index_pages import EVERY_KEY, Known, pages
from latchstore.redis.positions import stored_position
from latchstore.redis.scripts import INDEX

#: The facts that have sets; the one on keys always exists.
_FACTS = frozenset({"created", "modified", "revision"})

NOTHING_KNOWN = Known(b"0", indexes_of(NO_INDEXES))


class LeaseIsOverError(Exception):
    """Another process holds the lease under which an index was to be made."""


class ServerIndexes:
    """The indexes of a namespace.

    Parameters
    ----------
    server : Server

    Attributes
    ----------
    known : Known
        The list as last loaded.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.known: Known = NOTHING_KNOWN

    def load(self) -> Known:
        """Load and return the list."""
        server = self._server
        version, text = server.call(b"HMGET", server.tag + b":about", b"version", b"listed")
        self.known = known = Known(version or b"0", indexes_of((text or b"[]").decode()))
        return known

    def add(self, token: bytes, indexes: Iterable[Index]) -> None:
        """Add those indexes that do not exist, under a lease.

        Raises
        ------
        LeaseIsOverError
        """
        known = self.load()
        listed, text = known.indexes, ""
        for index in indexes:
            if index not in listed.listed:
                text = listed.with_index(index)
                listed = indexes_of(text)
        names = [name for name in listed.names if name not in known.indexes.names]
        facts = [fact for fact in listed.facts if fact in _FACTS and fact not in known.indexes.facts]
        sets = [b"i:m" + stored_key(name) for name in names] + [b"i:f" + fact.encode() for fact in facts]
        if sets:
            self._run(b"clear", token, *sets)
        if sets and self._server.call(b"EXISTS", self._server.tag + b":keys"):
            for name in names:
                self._fill_items(token, known, name)
            for fact in facts:
                self._fill_facts(token, known, fact)
        if text:
            self._set_list(token, text, ())

    def remove(self, token: bytes, index: Index) -> None:
        """Remove an index, under a lease; KeyError if it does not exist.

        Raises
        ------
        LeaseIsOverError
        """
        known = self.load()
        if index not in known.indexes.listed:
            raise KeyError(index)
        text = known.indexes.without(index)
        gone = set(_sets_of(known.indexes)) - set(_sets_of(indexes_of(text)))
        self._set_list(token, text, sorted(gone))

    def _run(self, *arguments: Any) -> None:
        if self._server.run(INDEX, *arguments) == b"LEASE":
            raise LeaseIsOverError

    def _fill_items(self, token: bytes, known: Known, name: str) -> None:
        stored, server = stored_key(name), self._server
        for page in pages(_Unchanged(server), known, (EVERY_KEY,)):
            positions: list[bytes] = []
            for key, flat in page:
                entry = entry_of(name_of(key), flat)
                if name in entry:
                    positions += (key, stored_position(entry[name]))
            self._run(b"items", token, b"i:m" + stored, b"p" + stored, *positions)

    def _fill_facts(self, token: bytes, known: Known, fact: str) -> None:
        set_name = b"i:f" + fact.encode()
        for page in pages(_Unchanged(self._server), known, (EVERY_KEY,), only_keys=True):
            self._run(b"facts", token, set_name, fact, *[key for key, _ in page])

    def _set_list(self, token: bytes, text: str, gone: Sequence[bytes]) -> None:
        indexes = indexes_of(text)
        items = _packed(map(stored_key, indexes.names))
        facts = _packed([fact.encode() for fact in indexes.facts if fact in _FACTS])
        self._run(b"list", token, text, items, facts, *gone)
        self.load()


class _Unchanged:
    """Reads while no other process writes."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def run(self, script: Any, *arguments: Any) -> Any:
        *_, found = self._server.run(script, b"", b"", *arguments)
        return found


def _sets_of(indexes: Indexes) -> Iterable[bytes]:
    """Return the sets of indexes."""
    yield from [b"i:m" + stored_key(name) for name in indexes.names]
    yield from [b"i:f" + fact.encode() for fact in indexes.facts if fact in _FACTS]


def _packed(names: Iterable[bytes]) -> bytes:
    # Without the type of bytes, so that the server reads texts.
    packed: bytes = msgpack.packb(list(names), use_bin_type=False)
    return packed
