"""The books of a namespace's caches: weights of entries, times of expiry, and the order of eviction.

1. The field ``caches`` of ``{ns}:about`` lists the bounds, each with number, prefix and idle time: one for
   each cache and each namespace of a cache, of any process. ``{ns}:c:<number>`` is a hash with its totals,
   the evictions by cause, and the hand of SIEVE; ``:q`` has its keys in the order of eviction, ``:v`` the
   keys that were hit, ``:x`` their times of expiry, ``:i`` the times at which they will have been idle too
   long, and ``:n`` the facts about each. ``{ns}:l`` has the running loads.
2. Each commit updates the books before it writes (``caches.lua`` is a part of ``commit.lua``). So they are
   correct after every commit of any process, also of a process without a cache.
3. The limits are not on the server: each process enforces the limits of its own caches, in each of its
   commits (``bounds.py``).
4. Entries older than a bound are recorded in pages, while others commit; their commits record their own
   writes.
5. Times are those of the server, unless a cache has another clock.

A server whose keys were all removed has no books: the next commit of a cache makes them again.

Thread safety: functions of the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from latchstore.contract.values import Entry
from latchstore.engine.entry_facts import METADATA_OVERHEAD, OVERHEAD, WEIGHT
from latchstore.redis.client import Server
from latchstore.redis.encoding import encode_item
from latchstore.redis.entries import name_of, stored_key
from latchstore.redis.scripts import BOOKS

#: Maximum number of entries or keys that one script reads.
AT_ONCE = 1_000


def open_bound(server: Server, prefix: bytes, idle: float | None) -> int:
    """Open the books for the keys with a prefix; return the number of the bound.

    Parameters
    ----------
    idle : float or None
        Seconds without a use after which an entry without its own idle time expires; the last value given
        applies to all processes.
    """
    number = int(server.run(BOOKS, b"open", prefix, b"" if idle is None else repr(float(idle))))
    while not server.run(BOOKS, b"fill", number, AT_ONCE):
        continue
    return number


def totals_of(server: Server, bound: int) -> tuple[int, int]:
    """Return the number of entries of a bound, and their total weight."""
    entries, weight = server.call(b"HMGET", _hash_of(server, bound), b"entries", b"weight")
    return int(entries or 0), int(weight or 0)


def evictions_of(server: Server, bound: int) -> dict[str, int]:
    """Return the number of evictions by all processes, by cause."""
    flat = server.call(b"HGETALL", _hash_of(server, bound))
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name_of(name[2:]): int(number) for name, number in pairs if name[:2] == b"x:"}


def _hash_of(server: Server, bound: int) -> bytes:
    return b"%b:c:%d" % (server.tag, bound)


def may_expire(server: Server, bound: int) -> bool:
    """Return whether any entry may expire."""
    return bool(server.run(BOOKS, b"may_expire", bound))


def last_use(server: Server, bound: int, key: str, revision: int) -> float | None:
    """Return the last recorded use of an entry of this revision; None if there is none."""
    found = server.run(BOOKS, b"last_use", bound, stored_key(key), revision)
    return None if found is None else float(found)


def note_hits(server: Server, bound: int, hits: Iterable[tuple[str, float | None]]) -> None:
    """Record uses of entries, with the time if it matters."""
    left = iter(hits)
    while page := list(islice(left, AT_ONCE)):
        server.run(BOOKS, b"use", bound, *flat_hits(page, b""))


def flat_hits(hits: Iterable[tuple[str, float | None]], untimed: Any) -> list[Any]:
    """Return keys and times, alternating."""
    flat: list[Any] = []
    for key, time in hits:
        flat += (stored_key(key), untimed if time is None else time)
    return flat


def expired(server: Server, bound: int, now: float | None) -> list[tuple[str, str]]:
    """Return some expired entries that are not being loaded, with causes; by the server's clock if None."""
    flat = server.run(BOOKS, b"expired", bound, b"" if now is None else repr(now), AT_ONCE)
    return [(name_of(key), name_of(cause)) for key, cause in zip(flat[::2], flat[1::2], strict=True)]


def check(server: Server, bound: int) -> None:
    """Raise AssertionError if the books do not match the entries; for tests."""
    wrong: Sequence[bytes] = server.run(BOOKS, b"check", bound)
    assert not wrong, [each.decode(errors="replace") for each in wrong]


def weight_of(key: str, entry: Entry) -> int:
    """Return the weight of an entry, as the script computes it."""
    weight = entry.get(WEIGHT)
    if type(weight) is int and 0 <= weight < 2**63:
        return weight
    total = OVERHEAD + len(stored_key(key)) + entry.size
    if entry:
        total += METADATA_OVERHEAD
    for name, value in entry.items():
        total += len(stored_key(name)) + len(encode_item(key, name, value))
    return total
