"""Reading the committed entries on a server.

Thread safety: rule 1 of ``engine.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from latchstore.contract.errors import CompactedError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.interface import Engine
from latchstore.engine.owner import Writer
from latchstore.engine.selection import Overlay, Selected
from latchstore.redis.client import Server
from latchstore.redis.entries import entry_of, stored_key
from latchstore.redis.indexes import ServerIndexes
from latchstore.redis.lease import holder_of
from latchstore.redis.scripts import READ
from latchstore.redis.server_clock import ServerClock
from latchstore.redis.view import NO_PLACE, PAGE_SIZE, RedisView

T = TypeVar("T")

#: Maximum number of attempts of a read of many pages.
_MOST_TIMES = 5


class ReadingEngine(Engine):
    """The reading methods of an engine.

    Attributes
    ----------
    server : Server
    indexes : ServerIndexes
    server_clock : ServerClock
    """

    server: Server
    indexes: ServerIndexes
    server_clock: ServerClock

    @property
    def revision(self) -> int:  # type: ignore[override]
        """Revision of the last commit of any process."""
        return int(self.server.call(b"HGET", self.server.tag + b":about", b"revision") or 0)

    def entry(self, key: str) -> Entry | None:
        flat = self.server.entry(stored_key(key))
        return entry_of(key, flat) if flat else None

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        if len(keys) > PAGE_SIZE:
            return self._of_one_instant(lambda view: view.entries_of(keys))
        *_, entries = self.server.run(READ, *NO_PLACE, *map(stored_key, keys))
        return {key: entry_of(key, flat) if flat else None for key, flat in zip(keys, entries, strict=True)}

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        return self._of_one_instant(lambda view: view.candidates(terms))

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return self._of_one_instant(lambda view: view.select(request, overlay))

    def _of_one_instant(self, read: Callable[[RedisView], T]) -> T:
        """Call a function that reads a whole view, whose instant is that of its first read.

        It starts again if the log does not go back far enough any more before it has ended.
        """
        for left in reversed(range(_MOST_TIMES)):
            try:
                return read(RedisView(self.server, self.indexes, is_of_first_read=True))
            except CompactedError:
                if not left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def writer_elsewhere(self) -> Writer | None:
        found: bytes | None = self.server.call(b"GET", self.server.tag + b":w")
        return None if found is None else holder_of(found)

    def clock(self) -> float:
        return self.server_clock.now()

    def clock_offset(self) -> float:
        return self.server_clock.offset()

    def keys(self) -> list[str]:
        return self._of_one_instant(lambda view: list(view.keys()))

    def count(self) -> int:
        count: int = self.server.call(b"ZCARD", self.server.tag + b":keys")
        return count

    def view(self) -> RedisView:
        return RedisView(self.server, self.indexes)
