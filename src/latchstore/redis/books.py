"""The books of the caches of a namespace: what entries weigh, when they expire, which are evicted next.

1. The field ``caches`` of ``{ns}:about`` lists the bounds, each with number, prefix and idle time: of each
   cache, and of each namespace of one, of whatever process. ``{ns}:c:<number>`` is a hash with its totals,
   how many were evicted by cause, and the hand of SIEVE; ``:q`` has its keys in the order of eviction, ``:v``
   those that were hit, ``:x`` their deadlines, ``:i`` when they will have been idle too long, and ``:n`` what
   is known of each. ``{ns}:l`` has who is loading which key.
2. Each commit keeps them, before it writes (``caches.lua`` is a part of ``commit.lua``): so they are right
   after every commit of any process, also of one that has no cache.
3. How much there may be is no matter of the server: each process that has a cache keeps to the limits of its
   own caches, in each of its commits (``bounds.py``).
4. What was there before a bound is noted in pages, while others commit; what they write is noted by them.
5. Times are the server's own, unless a cache has another clock.

A server from which all was removed has no books: the next commit of a cache makes them again.

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

#: How many entries or keys one script looks at, at the most.
AT_ONCE = 1_000


def open_bound(server: Server, prefix: bytes, idle: float | None) -> int:
    """Have books kept for the keys that begin with a prefix; return the number of the bound.

    Parameters
    ----------
    idle : float or None
        Seconds without a use after which an entry expires that has no such time of its own; the last one that
        was given counts, in all processes.
    """
    number = int(server.run(BOOKS, b"open", prefix, b"" if idle is None else repr(float(idle))))
    while not server.run(BOOKS, b"fill", number, AT_ONCE):
        continue
    return number


def totals_of(server: Server, bound: int) -> tuple[int, int]:
    """Return how many entries there are in a bound, and what they weigh."""
    entries, weight = server.call(b"HMGET", _hash_of(server, bound), b"entries", b"weight")
    return int(entries or 0), int(weight or 0)


def evictions_of(server: Server, bound: int) -> dict[str, int]:
    """Return how many entries were evicted by all processes, by cause."""
    flat = server.call(b"HGETALL", _hash_of(server, bound))
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name_of(name[2:]): int(number) for name, number in pairs if name[:2] == b"x:"}


def _hash_of(server: Server, bound: int) -> bytes:
    return b"%b:c:%d" % (server.tag, bound)


def may_expire(server: Server, bound: int) -> bool:
    """Tell whether there is anything that may expire."""
    return bool(server.run(BOOKS, b"may_expire", bound))


def last_use(server: Server, bound: int, key: str, revision: int) -> float | None:
    """Return when an entry of this revision was last used, as far as that was noted; None: it was not."""
    found = server.run(BOOKS, b"last_use", bound, stored_key(key), revision)
    return None if found is None else float(found)


def note_hits(server: Server, bound: int, hits: Iterable[tuple[str, float | None]]) -> None:
    """Note that entries were used, and when, if that matters."""
    left = iter(hits)
    while page := list(islice(left, AT_ONCE)):
        server.run(BOOKS, b"use", bound, *flat_hits(page, b""))


def flat_hits(hits: Iterable[tuple[str, float | None]], untimed: Any) -> list[Any]:
    """Return keys and times, in turns."""
    flat: list[Any] = []
    for key, time in hits:
        flat += (stored_key(key), untimed if time is None else time)
    return flat


def expired(server: Server, bound: int, now: float | None) -> list[tuple[str, str]]:
    """Return some of what has expired and is not being loaded, with causes; by the server's clock if None."""
    flat = server.run(BOOKS, b"expired", bound, b"" if now is None else repr(now), AT_ONCE)
    return [(name_of(key), name_of(cause)) for key, cause in zip(flat[::2], flat[1::2], strict=True)]


def check(server: Server, bound: int) -> None:
    """Raise AssertionError if the books do not match the entries; for tests."""
    wrong: Sequence[bytes] = server.run(BOOKS, b"check", bound)
    assert not wrong, [each.decode(errors="replace") for each in wrong]


def weight_of(key: str, entry: Entry) -> int:
    """Return what an entry weighs, as the script computes it."""
    weight = entry.get(WEIGHT)
    if type(weight) is int and 0 <= weight < 2**63:
        return weight
    total = OVERHEAD + len(stored_key(key)) + entry.size
    if entry:
        total += METADATA_OVERHEAD
    for name, value in entry.items():
        total += len(stored_key(name)) + len(encode_item(key, name, value))
    return total
