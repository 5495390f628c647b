"""Whether a server keeps the store's promises, looked at when a store is opened.

Thread safety: functions of a server, whose commands may be sent by any thread.
"""

from __future__ import annotations

from latchstore.contract.errors import StoreError, StoreFormatError
from latchstore.redis.client import Server
from latchstore.redis.scripts import OPEN

#: The oldest server whose scripts can be refused before they write, for want of memory.
_OLDEST = (7, 0)

#: What the server has of how a namespace is written. Its length matters, see open.lua.
FORMAT = b"latchstore 1: entries, keys, indexes and the log of a store; https://pypi.org/project/latchstore"


def open_namespace(server: Server) -> None:
    """Refuse a server that would not keep the store's promises, and a namespace that is another's.

    Raises
    ------
    StoreError
        If it is too old, is a replica, or evicts keys when it is full.
    StoreFormatError
        If the namespace is written by a later version.
    """
    facts = {**_facts(server, b"server"), **_facts(server, b"replication"), **_facts(server, b"memory")}
    version = facts.get("redis_version", "0")
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise StoreError(f"{server.name} is of version {version}; a store needs Redis 7.0 or Valkey")
    if facts.get("role") == "slave":
        raise StoreError(f"{server.name} is a replica, which cannot be written; connect to its primary")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreError(
            f"{server.name} evicts keys when its memory is full (maxmemory-policy {policy}), and so would "
            "lose parts of commits; set it by: CONFIG SET maxmemory-policy noeviction"
        )
    found: bytes = server.run(OPEN, FORMAT)
    if found.partition(b":")[0] != FORMAT.partition(b":")[0]:
        written = found.partition(b":")[0].decode("utf-8", "replace")
        raise StoreFormatError(f"the namespace on {server.name} is of a format not known here: {written!r}")


def _facts(server: Server, section: bytes) -> dict[str, str]:
    """Return the facts of a section of INFO."""
    text: bytes = server.call(b"INFO", section)
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
