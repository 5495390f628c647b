"""`RedisView`: the entries after one commit, by undoing later changes in the log.

1. A view is a revision. Each read is one script, which returns the present state and the log entries since
   the view last read. For each key that was changed after the revision, the view keeps its entry at the
   revision in `_undo`. So a read shows the instant of the view, and an idle view costs nothing.
2. `_undo` may have more changes than a read has seen: an entry in it is the view's, and any other key has not
   changed since. So threads may read at the same time, and large reads are paged.
3. If the log does not go back far enough any more, the view cannot be read (`CompactedError`).

Thread safety: `_undo` is filled by single operations of the dict, in the order of the log, each key once;
`_reached` is advanced after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from latchstore.contract.errors import CompactedError, StoreError, TransactionConflictError
from latchstore.contract.requests import Request
from latchstore.contract.values import Entry
from latchstore.engine.interface import View
from latchstore.engine.selection import Overlay, Selected
from latchstore.redis import queries
from latchstore.redis.client import Server
from latchstore.redis.entries import entry_of, name_of, stored_key
from latchstore.redis.index_pages import IndexesChangedError, Known
from latchstore.redis.indexes import ServerIndexes
from latchstore.redis.log import fields_after, raw_changes
from latchstore.redis.scripts import COUNT, PAGE, READ, Script

T = TypeVar("T")

#: Number of keys that one script reads.
PAGE_SIZE = 1_000

#: A revision and the id of its commit, in the server's form.
Place = tuple[bytes, bytes]

NO_PLACE: Place = (b"", b"")


class RedisView(View):
    """The entries after one commit.

    Parameters
    ----------
    server : Server
    indexes : ServerIndexes
    is_of_first_read : bool
        Whether its instant is that of its first read, which saves a round trip. Until then it belongs to one
        thread.
    """

    def __init__(self, server: Server, indexes: ServerIndexes, *, is_of_first_read: bool = False) -> None:
        self._server = server
        self._indexes = indexes
        self._undo: dict[bytes, Any] | None = {}
        self.place: Place = NO_PLACE
        self._reached: Place = NO_PLACE
        if not is_of_first_read:
            self.run(READ)

    # -- reading ----------------------------------------------------------------------------------

    def run(self, script: Script, *arguments: Any) -> Any:
        """Run a reading script; return its result, which `undo_now` corrects."""
        while True:
            undo = self.undo_now()
            status, revision, commit, log, *found = self._server.run(script, *self._reached, *arguments)
            if status in (b"OK", b"MORE"):
                for _, fields in log:
                    for key, old, _, _ in raw_changes(_changes_in(fields)):
                        undo.setdefault(key, old)
                reached = (revision, commit)
                if self.place is NO_PLACE:
                    self.revision = int(revision)
                    self.place = self._reached = reached
                self._reached = max(self._reached, reached, key=_revision_of)
                if status == b"OK":
                    return found[0]
            else:
                raise self._lost(status, *found)

    def undo_now(self) -> dict[bytes, Any]:
        """Return the view's entries, in the log's form, of all keys that were changed since."""
        undo = self._undo
        if undo is None:
            raise self.closed_error()
        return undo

    def _lost(self, status: bytes, oldest: bytes = b"") -> StoreError:
        name = f"<snapshot of revision {self.revision}>"
        if status == b"COMPACTED":
            return CompactedError(self.revision, int(oldest), name)
        return StoreError(f"{self._server.name} has lost commits: {name} is gone")

    def entry(self, key: str) -> Entry | None:
        undo, stored = self.undo_now(), stored_key(key)
        flat = () if stored in undo else self.run(READ, stored)[0]
        if stored in undo:
            old = undo[stored]
            return entry_of(key, old) if old else None
        return entry_of(key, flat) if flat else None

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        found: dict[str, Entry | None] = dict.fromkeys(keys)
        for start in range(0, len(keys), PAGE_SIZE):
            some = keys[start : start + PAGE_SIZE]
            stored = list(map(stored_key, some))
            entries = self.run(READ, *stored)
            undo = self.undo_now()
            for key, name, flat in zip(some, stored, entries, strict=True):
                if name in undo:
                    if undo[name]:
                        found[key] = entry_of(key, undo[name])
                elif flat:
                    found[key] = entry_of(key, flat)
        return found

    def count(self) -> int:
        count: int = self.run(COUNT)
        # Changes after the read are not in the count; if there are any, the keys are counted.
        return count if not self.undo_now() else sum(1 for _ in self.keys())

    def items(self) -> Iterator[tuple[str, Entry]]:
        for names, entries, changed in self._pages(True):
            found = dict(zip(names, entries, strict=True))
            for name in sorted({*names, *changed}):
                key = name_of(name)
                if name in changed:
                    if changed[name]:
                        yield key, entry_of(key, changed[name])
                else:
                    yield key, entry_of(key, found[name])

    def keys(self) -> Iterator[str]:
        """Yield all keys in order."""
        for names, _, changed in self._pages(False):
            for name in sorted({*names, *changed}):
                if name not in changed or changed[name]:
                    yield name_of(name)

    def _pages(self, wanted: bool) -> Iterator[tuple[list[bytes], list[list[bytes]], dict[bytes, Any]]]:
        """Read all keys in pages: their names, their present entries, and the changes among them."""
        first: bytes | None = None
        start = b"-"
        while True:
            names, entries = self.run(PAGE, start, PAGE_SIZE, int(wanted))
            is_last = len(names) < PAGE_SIZE
            last = None if is_last else names[-1]
            changed = {
                key: old
                for key, old in list(self.undo_now().items())
                if (first is None or key > first) and (last is None or key <= last)
            }
            yield names, entries, changed
            if last is None:
                return
            first, start = last, b"(" + last

    def candidates(self, terms: Mapping[str, object]) -> Iterable[tuple[str, Entry]]:
        return self._query(lambda known: queries.candidates(self, known, terms))

    def select(self, request: Request, overlay: Overlay) -> Selected | None:
        return self._query(lambda known: queries.select(self, known, request, overlay))

    def _query(self, function: Callable[[Known], T]) -> T:
        """Call a function with the server's list of indexes."""
        known = self._indexes.known
        while True:
            try:
                return function(known)
            except IndexesChangedError:
                known = self._indexes.load()

    def changed(self) -> dict[str, tuple[Entry | None, Entry | None]]:
        """Return the changes in the log since, whether or not the view is closed."""
        first: dict[bytes, Any] = {}
        last: dict[bytes, Any] = {}
        place, status = self.place, b"MORE"
        while status == b"MORE":
            status, revision, commit, log, *found = self._server.run(READ, *place)
            if status not in (b"OK", b"MORE"):
                raise TransactionConflictError(str(self._lost(status, *found)))
            for _, fields in log:
                for key, old, new, cause in raw_changes(_changes_in(fields)):
                    first.setdefault(key, old)
                    last[key] = fields_after(old, new, cause)
            place = (revision, commit)
        self.validated: Place = place
        return {name_of(key): (_entry(key, old), _entry(key, last[key])) for key, old in first.items()}

    # -- closing -----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._undo is not None

    def close(self) -> None:
        self._undo = None


def _changes_in(fields: Sequence[bytes]) -> bytes:
    """Return the changes in an entry of the stream."""
    return fields[5]


def _revision_of(place: Place) -> int:
    return int(place[0])


def _entry(key: bytes, logged: Any) -> Entry | None:
    return entry_of(name_of(key), logged) if logged else None
