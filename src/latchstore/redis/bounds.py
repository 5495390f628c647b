"""The limits of this process's caches on a server, and the part of its commits that enforces them.

The engine calls `Caches` for each commit that it sends. ``books.py`` has the books and their rules.

Thread safety: `Caches.bounds` is changed by single operations of the list. A `CacheCall` belongs to one call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgpack

from latchstore.contract.errors import EntryTooLargeError
from latchstore.engine.edits import Edit, cause_of_edit
from latchstore.engine.limits import Limits
from latchstore.engine.processes import this_process
from latchstore.engine.revocations import Covers, Revocations
from latchstore.engine.shared_bound import ProcessBound
from latchstore.redis import books
from latchstore.redis.client import Server
from latchstore.redis.entries import name_of, stored_key
from latchstore.redis.scripts import BOOKS

# Lua accepts any bytes as strings.
_pack: Callable[[Any], bytes] = partial(msgpack.packb, use_bin_type=False)


class Bound(ProcessBound):
    """The limits of one cache of this process on a server.

    Parameters
    ----------
    limits : Limits
    server : Server
    """

    def __init__(self, limits: Limits, server: Server) -> None:
        super().__init__(limits, 0)
        self._server = server
        self._prefix = stored_key(limits.prefix)
        self._idle = limits.idle
        self.open()

    def open(self) -> None:
        """Open the books."""
        self.number = books.open_bound(self._server, self._prefix, self._idle)

    def put_back(self, hits: Sequence[tuple[str, float | None]]) -> None:
        """Queue hits again, for another commit."""
        for key, time in hits:
            self.hits.setdefault(key, time)


class LateError(Exception):
    """The lease of a load has ended before its result was stored; nothing was changed."""


class CacheCall:
    """The part of a commit that a cache adds, as the commit's `check`.

    Parameters
    ----------
    nows : dict
        By the number of a bound for which the commit evicts some expired entries: the reading of the clock,
        or true for the server's.
    before : callable, optional
        Called before the commit is sent; raises if it must not be sent.
    fence : tuple of str and int, optional
        A key and the token of its lease; the commit is made only with this lease.
    most : dict
        By the number of a bound, the maximum number of evictions: for ``sweep`` and ``trim``.

    Attributes
    ----------
    expired : int
        Number of expired entries that were evicted.
    has_more : bool
        Whether more entries must be evicted.
    """

    def __init__(
        self,
        nows: dict[int, float | bool],
        before: Callable[[], None] | None = None,
        fence: tuple[str, int] | None = None,
        most: dict[int, dict[str, int]] | None = None,
    ) -> None:
        self.nows: dict[int, float | bool] = nows
        self._before = before
        self.fence: tuple[str, int] | None = fence
        self.most: dict[int, dict[str, int]] = most or {}
        self.expired: int = 0
        self.has_more: bool = False

    def __call__(self) -> None:
        if self._before is not None:
            self._before()

    def note(self, extra: bytes | None) -> None:
        """Record the script's answer for caches.

        None if the answer was lost: then another commit does the rest.
        """
        if extra:
            self.expired, more = msgpack.unpackb(extra)
            self.has_more = bool(more)
        else:
            self.has_more = bool(self.most)


class Brought(NamedTuple):
    """The part of a commit that caches add.

    Attributes
    ----------
    argument : bytes
        Argument of the script.
    hits : list
        Bounds, each with its hits in the argument.
    """

    argument: bytes
    hits: list[tuple[Bound, list[tuple[str, float | None]]]]

    def note(self, answer: Sequence[Any], call: CacheCall | None) -> None:
        """Record the answer."""
        if answer[0] not in (b"OK", b"SAME"):
            self.put_back()
        elif call is not None:
            call.note(answer[3])

    def put_back(self) -> None:
        """Queue the hits for another commit, as this one was not made."""
        for bound, hits in self.hits:
            bound.put_back(hits)


_NOTHING = Brought(b"", [])


class Caches:
    """The caches of this process on a server.

    Attributes
    ----------
    are_there : bool
        Whether there are books, as far as is known: then commits use a longer script that updates them.
    bounds : list of Bound
        Each commit of this process enforces them.
    revocations : Revocations
        The leases that the open transactions of this process will end.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.are_there: bool = False
        self.bounds: list[Bound] = []
        self.revocations: Revocations = Revocations()

    def brought(self, edits: Collection[tuple[str, Edit]], call: CacheCall | None) -> Brought:
        """Return the part of a commit for caches, and note the loads of this process that it overtakes."""
        bounds = tuple(self.bounds)
        revoked = self.revocations.of_caller()
        if not bounds and call is None and not revoked:
            return _NOTHING  # hot path: there is no cache
        # Except the key being loaded: its own commit, which may be sent again, does not overtake its load.
        loaded = call.fence[0] if call is not None and call.fence is not None else None
        written = [key for key, edit in edits if key != loaded and cause_of_edit(edit) is None]
        hits = []
        asked: dict[str, Any] = {"me": this_process(), "bounds": [], "fences": [], "revoked": []}
        for bound in bounds:
            bound.note_written(written)
            used = bound.take_hits()
            hits.append((bound, used))
            asked["bounds"].append(_limits_of(bound, used, call))
        if call is not None and call.fence is not None:
            key, token = call.fence
            asked["fences"] = [stored_key(key), token]
        if revoked:
            asked["last"], tokens = self.covered(revoked)
            asked["revoked"] = [token for _, token in tokens]
        return Brought(_pack(asked), hits)

    def covered(self, revoked: Collection[Covers]) -> tuple[int, list[tuple[bytes, int]]]:
        """Return the last token issued, and keys and tokens of the leases that are revoked."""
        last, *flat = self._server.run(BOOKS, b"loads")
        found = []
        for stored, token, tags in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            key, of_load = name_of(stored), frozenset(map(name_of, msgpack.unpackb(tags, raw=True)))
            if any(covers(key, of_load) for covers in revoked):
                found.append((stored, token))
        return last, found

    def refuse(self, answer: Sequence[Any]) -> None:
        """Raise the error for a refusal by the script, unless the commit can be sent again.

        Missing books are made again.
        """
        if answer[0] == b"CACHES":
            self.are_there = True
            return
        kind = answer[1]
        if kind == b"LATE":
            raise LateError(name_of(answer[2]))
        if kind == b"HEAVY":
            key, weight, most = name_of(answer[2]), int(answer[3]), int(answer[4])
            raise EntryTooLargeError(
                f"the value of key {key!r} weighs {weight} bytes, more than max_bytes={most}"
            )
        for bound in self.bounds:
            bound.open()


def _limits_of(
    bound: Bound, used: Sequence[tuple[str, float | None]], call: CacheCall | None
) -> dict[str, Any]:
    limits: dict[str, Any] = {"id": bound.number, "hits": books.flat_hits(used, False)}
    if bound.max_entries is not None:
        limits["max_entries"] = bound.max_entries
    if bound.max_bytes is not None:
        limits["max_bytes"] = bound.max_bytes
    if call is not None:
        if bound.number in call.nows:
            limits["now"] = call.nows[bound.number]
        limits.update(call.most.get(bound.number, {}))
    return limits
