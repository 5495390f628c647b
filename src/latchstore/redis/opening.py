"""Checks, when a store is opened, whether the server can keep the store's guarantees.

Thread safety: functions of a server, to which any thread may send commands.
"""

from __future__ import annotations

from latchstore.contract.errors import StoreError, StoreFormatError
from latchstore.redis.client import Server
from latchstore.redis.scripts import OPEN

#: The oldest version whose scripts can be refused before they write if memory is full.
_OLDEST = (7, 0)

#: The server's value for the format of a namespace. Its length matters, see open.lua.
FORMAT = b"latchstore 1: entries, keys, indexes and the log of a store; https://pypi.org/project/latchstore"


def open_namespace(server: Server) -> None:
    """Refuse a server that cannot keep the store's guarantees, and a namespace of another format.

    Raises
    ------
    StoreError
        If the server is too old, is a replica, or evicts keys when it is full.
    StoreFormatError
        If a newer version has written the namespace.
    """
    facts = {**_facts(server, b"server"), **_facts(server, b"replication"), **_facts(server, b"memory")}
    version = facts.get("redis_version", "0")
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise StoreError(f"{server.name} is of version {version}; a store needs Redis 7.0 or Valkey")
    if facts.get("role") == "slave":
        raise StoreError(f"{server.name} is a read-only replica; connect to its primary")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreError(
            f"{server.name} evicts keys when its memory is full (maxmemory-policy {policy}), which would "
            "lose parts of commits; run: CONFIG SET maxmemory-policy noeviction"
        )
    found: bytes = server.run(OPEN, FORMAT)
    if found.partition(b":")[0] != FORMAT.partition(b":")[0]:
        written = found.partition(b":")[0].decode("utf-8", "replace")
        raise StoreFormatError(f"the namespace on {server.name} has an unknown format: {written!r}")


def _facts(server: Server, section: bytes) -> dict[str, str]:
    """Return the facts of a section of INFO."""
    text: bytes = server.call(b"INFO", section)
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
