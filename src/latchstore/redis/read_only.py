"""A namespace of a server, read without changing anything: for tools that inspect stores.

`RedisStore` makes a namespace if there is none, and cleans up when it is opened. Here only reading commands
and scripts are sent, so a replica suffices.

Thread safety: that of `RedisView`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from latchstore.contract.errors import StoreError, StoreFormatError
from latchstore.delivery.event_manager import EventManager
from latchstore.engine.snapshot import Snapshot
from latchstore.redis import books
from latchstore.redis.client import Server
from latchstore.redis.entries import name_of
from latchstore.redis.indexes import ServerIndexes
from latchstore.redis.opening import FORMAT
from latchstore.redis.scripts import SIZES
from latchstore.redis.view import PAGE_SIZE, RedisView

#: How many pages of keys are looked through for namespaces, and about how many keys each has.
_MOST_PAGES, _KEYS = 500, 1_000


class ReadOnlyNamespace:
    """A namespace of a server, as its last commit has left it when it is opened.

    Parameters
    ----------
    url : str
        As for `RedisStore`.
    namespace : str
    options : mapping
        Other arguments of ``redis.Redis.from_url``.

    Attributes
    ----------
    snapshot : Snapshot
        Readable for as long as the history of the server goes back to it.
    place : str
        The address of the server.

    Raises
    ------
    StoreError
        If there is no such namespace; the error has the existing ones.
    StoreFormatError
        If a newer version has written it.
    ConnectionError
        If the server cannot be reached.
    """

    def __init__(self, url: str, namespace: str, options: Mapping[str, Any]) -> None:
        self._server = server = Server(url, namespace, options)
        self.place: str = server.name
        try:
            _check_format(server, namespace)
            self._indexes = ServerIndexes(server)
            self.snapshot: Snapshot = Snapshot(EventManager(), RedisView(server, self._indexes))
        except BaseException:
            server.close()
            raise

    def facts(self) -> dict[str, Any]:
        """Return the data of the namespace other than entries, as `ReadOnlyFile.facts` does for a file."""
        server = self._server
        first = server.call(b"XRANGE", server.tag + b":log", b"-", b"+", b"COUNT", 1)
        packed: bytes | None = server.call(b"HGET", server.tag + b":about", b"caches")
        bounds = [] if packed is None else msgpack.unpackb(packed, raw=True)
        caches = []
        for number, prefix, idle in bounds:
            entries, weight = books.totals_of(server, number)
            caches.append(
                {
                    "prefix": name_of(prefix),
                    "entries": entries,
                    "bytes": weight,
                    "idle": idle or None,
                    "evictions": books.evictions_of(server, number),
                }
            )
        return {
            "oldest": int(first[0][0].partition(b"-")[0]) if first else None,
            "indexes": list(self._indexes.load().indexes.listed),
            "caches": caches,
        }

    def sizes(self, most: int) -> tuple[int, list[tuple[str, int]]]:
        """Return the total length of the data of all keys, and the largest keys with their lengths.

        Reads in pages, while others commit.
        """
        total, largest, begin = 0, list[tuple[str, int]](), b"-"
        while flat := self._server.run(SIZES, begin, PAGE_SIZE):
            sizes = [(name_of(key), size) for key, size in zip(flat[::2], flat[1::2], strict=True)]
            total += sum(size for _, size in sizes)
            largest = sorted([*largest, *sizes], key=lambda each: -each[1])[:most]
            begin = b"(" + flat[-2]
        return total, largest

    def close(self) -> None:
        """Disconnect."""
        self.snapshot.close()
        self._server.close()


def _check_format(server: Server, namespace: str) -> None:
    written: bytes | None = server.call(b"HGET", server.tag + b":about", b"format")
    if written is None:
        found = ", ".join(repr(name) for name in namespaces(server)) or "none"
        raise StoreError(f"{server.name} has no store in the namespace {namespace!r}; there are: {found}")
    if written.partition(b":")[0] != FORMAT.partition(b":")[0]:
        raise StoreFormatError(f"the namespace {namespace!r} on {server.name} has an unknown format")


def namespaces(server: Server) -> list[str]:
    """Return the namespaces of a server that have stores, unless it has very many keys."""
    found: set[str] = set()
    cursor = b"0"
    for _ in range(_MOST_PAGES):
        cursor, keys = server.call(b"SCAN", cursor, b"MATCH", b"{*}:about", b"COUNT", _KEYS)
        found.update(name_of(key[1 : -len(b"}:about")]) for key in keys)
        if cursor == b"0":
            break
    return sorted(found)


def namespaces_at(url: str) -> list[str]:
    """Return the namespaces of the server at a URL, like `namespaces`."""
    server = Server(url, "-", {})
    try:
        return namespaces(server)
    finally:
        server.close()
