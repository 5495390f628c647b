"""What was committed, for those who read it at their own pace: a history, and a buffer for each watch.

Thread safety:

1. `ChangeFeed.publish` is called by whoever holds the writer mutex, once a commit, in the order of
   commits, when the commit can be seen. `active` is asked for before, with no lock.
2. A watch is added under the table lock, so at the moment between two commits that `revision` names; one
   that can be seen then may still have to be published. Each buffer passes over what is not after its
   moment.
3. The feed latch makes one step of publishing: a commit is in the history that a new watch is given, or is
   offered to its buffer, and never both or neither.
4. Each buffer has a latch of its own. A writer holds it while it appends, a reader while it takes one
   change. No user code runs under it: a change is matched by builtin code alone, and where that cannot
   tell (values with an ``==`` of their own) it is kept, and the reader decides.
5. Whoever was struck by an exception while publishing a commit publishes it again: what is in the history
   or in a buffer already is passed over. Inside a latch each step that changes something for others is one
   assignment, or is done so that it may be done again.
6. A buffer whose reader is gone is closed, wherever the collector runs. The next commit lets go of it.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from latchstore.contract.errors import CompactedError
from latchstore.contract.glob_pattern import compiled, literal_key
from latchstore.contract.matching import may_match
from latchstore.contract.values import Change, cause_of, deletion
from latchstore.delivery.waiting import Latch, Waiters

#: Seconds after which a reader looks by itself whether there is a change: a wake-up is lost only if an
#: exception strikes the writer that was to give it.
_LOOK_AGAIN = 1.0


class Commit(NamedTuple):
    """One commit, as it is told."""

    revision: int
    changes: Sequence[Change]
    transaction: object | None


class Record(NamedTuple):
    """One change of one commit."""

    revision: int
    change: Change
    transaction: object | None


class Lost(NamedTuple):
    """What a full buffer has dropped: the first and the last revision."""

    first_revision: int
    last_revision: int


class Interest:
    """Which changes a watch is meant to have.

    Parameters
    ----------
    glob : str
        A pattern that the key must match.
    terms : mapping
        Metadata items and the values that they must have, before the change or after it: so a change that
        ends a match is heard, too.
    """

    __slots__ = ("_key", "_matches", "terms")

    def __init__(self, glob: str, terms: Mapping[str, Any]) -> None:
        self._key = literal_key(glob)
        self._matches: Callable[[str], object] | None = None if glob == "*" else compiled(glob)
        self.terms = dict(terms)

    def may_have(self, change: Change) -> bool:
        """Tell whether it has the change, or only its reader can tell. Runs builtin code alone."""
        key, old, new = change
        if self._key is not None:
            if key != self._key:
                return False
        elif self._matches is not None and not self._matches(key):
            return False
        return not self.terms or may_match(old, self.terms) or may_match(new, self.terms)


class ChangeBuffer:
    """The changes that one watch has not read yet.

    Parameters
    ----------
    interest : Interest
    limit : int
        How many changes are kept.
    coalesce : bool
        Whether a full buffer keeps the latest change of each key, and not the latest changes.

    Attributes
    ----------
    dropped : int
        How many changes were dropped.
    ended : bool
        Whether no more changes come; those that are here can still be read.
    past : deque of Record
        What the history had when the watch was opened; all of it is older than what comes here.
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_closed",
        "_coalesce",
        "_interest",
        "_latch",
        "_latest",
        "_limit",
        "_lost",
        "_reader",
        "_records",
        "_revision",
        "_waiters",
        "dropped",
        "ended",
        "past",
    )

    def __init__(self, interest: Interest, limit: int, coalesce: bool) -> None:
        self._interest = interest
        # The last commit that was offered, or after which the buffer begins.
        self._revision = 0
        self._limit = limit
        self._coalesce = coalesce
        # Guards all that follows. Held to append and to take a change; no user code, and no other lock.
        self._latch = Latch()
        # Those who wait for a change.
        self._waiters = Waiters()
        self._records: deque[Record] = deque()
        # The records, by key, once a coalescing buffer was full, until it has been read empty.
        self._latest: OrderedDict[str, Record] = OrderedDict()
        # First and last revision of what was dropped and not told yet.
        self._lost: Lost | None = None
        self.past: deque[Record] = deque()
        self.dropped = 0
        self.ended = False
        self._closed = False
        # Whoever reads; when it is gone, this has an item, for which a deque, unlike a list, needs no memory.
        self._reader: weakref.ref[object] | None = None
        self._abandoned: deque[object] = deque()
        _buffers.add(self)

    def renew(self) -> None:
        """Go on with a free latch and with nothing to read, in a forked child."""
        self._latch = Latch()
        self._waiters = Waiters()
        self._clear()

    def belong_to(self, reader: object) -> None:
        """Have the buffer closed when nobody holds its reader any more.

        That is one ``deque.append`` in C: no lock is taken where the collector runs, and no bytecode is there
        for an exception to strike. The next commit lets go of the buffer.
        """
        self._reader = weakref.ref(reader, self._abandoned.append)

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed or bool(self._abandoned)

    def offer(self, commit: Commit) -> None:
        """Take what is of interest in a commit; the caller holds the writer mutex."""
        if commit.revision <= self._revision:
            return
        has = self._interest.may_have
        records = [
            Record(commit.revision, change, commit.transaction) for change in commit.changes if has(change)
        ]
        if records:
            self._latch.during(self._add_surely, records, commit.revision)
            self._waiters.ring()

    def begin(self, revision: int) -> None:
        """Take only what is committed after a revision."""
        self._revision = revision

    def _add_surely(self, records: list[Record], revision: int) -> None:
        """Add the changes of a commit, all of them even if an exception strikes: rule 5."""
        try:
            self._add(records, revision)
        except BaseException:
            self._add(records, revision)
            raise

    def _add(self, records: list[Record], revision: int) -> None:
        if revision <= self._revision:
            return  # it was struck after that
        if self._latest:
            self._merge(records)
            self._records.clear()
        else:
            self._append(records, revision)
        self._revision = revision

    def _append(self, records: list[Record], revision: int) -> None:
        held, lost = self._records, self._lost
        struck = (held and held[-1].revision == revision) or (lost and lost.last_revision == revision)
        if not struck:
            held.extend(records)
        if len(held) > self._limit:
            self._make_room()
        elif held and lost and held[0].revision <= lost.last_revision:
            self._drop_until(lost.last_revision)

    def _make_room(self) -> None:
        records = self._records
        if self._coalesce:
            self._merge(records)
            records.clear()
            return
        # Whole commits go, so that what is left begins after all that was lost; that is noted first.
        last = records[len(records) - self._limit - 1].revision
        self._lost = Lost(records[0].revision if self._lost is None else self._lost.first_revision, last)
        self._drop_until(last)

    def _drop_until(self, revision: int) -> None:
        while self._records and self._records[0].revision <= revision:
            self._records.popleft()
            self.dropped += 1

    def _merge(self, records: Sequence[Record] | deque[Record]) -> None:
        """Keep the latest change of each key, with the value from before the first."""
        latest = self._latest
        for record in records:
            key, old, new = record.change
            earlier = latest.get(key)
            if earlier is not None:
                self.dropped += 1
                old = earlier.change[1]
            if old is not None or new is not None:
                change = (key, old, new) if new is not None else deletion(key, old, cause_of(record.change))
                latest[key] = record._replace(change=change)
                latest.move_to_end(key)
            elif earlier is not None:
                del latest[key]

    def _take(self) -> Record | Lost | None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            return lost
        if self._latest:
            return self._latest.popitem(last=False)[1]
        return self._records.popleft() if self._records else None

    def _is_ready(self) -> bool:
        return bool(self._records or self._latest or self._lost or self.ended or self.closed)

    def take(self, deadline: float | None) -> Record | Lost | None:
        """Return the next change, or what was lost before it.

        Waits for one until the deadline, in monotonic seconds, or until no more will come; then it is None.
        """
        while (taken := self._latch.during(self._take)) is None and not self.ended and not self.closed:
            left = -1.0 if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                return None
            self._waiters.wait(self._is_ready, left, yields=0, look_again=_LOOK_AGAIN)
        # What came between the look and the end is given, too.
        return self._latch.during(self._take) if taken is None else taken

    def __len__(self) -> int:
        """Return how many changes there are to read."""
        return len(self._records) + len(self._latest)

    def end(self) -> None:
        """Let the reader have what is here, and no more."""
        self.ended = True
        self._waiters.ring_all()

    def close(self) -> None:
        """Give up what has not been read, and wake whoever waits for more."""
        self._closed = True
        self._latch.during(self._clear)
        self._waiters.ring_all()

    def _clear(self) -> None:
        self.past.clear()
        self._records.clear()
        self._latest.clear()
        self._lost = None


# Every buffer alive, for children that this process forks: that of a watch whose store was closed is in no
# feed any more, and can be read all the same.
_buffers: weakref.WeakSet[ChangeBuffer] = weakref.WeakSet()


def _renew_buffers_in_child() -> None:
    for buffer in list(_buffers):
        buffer.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_buffers_in_child)


class ChangeFeed:
    """The history of one store, and the buffers of its watches.

    Parameters
    ----------
    history : int
        How many of the last commits are kept.

    Attributes
    ----------
    active : bool
        Whether commits need be published at all.
    """

    __slots__ = ("_begun", "_buffers", "_dropped", "_feed_latch", "_history", "active")

    def __init__(self, history: int) -> None:
        # Guards all that follows. Held to append one commit, to copy the history, to add or remove a
        # buffer; nothing else is called under it.
        self._feed_latch = Latch()
        self._history: deque[Commit] = deque(maxlen=history)
        self._buffers: tuple[ChangeBuffer, ...] = ()
        # What buffers that are gone have dropped.
        self._dropped = 0
        self.active = history > 0
        # The revision after which changes are published.
        self._begun = 0

    def begin(self, revision: int) -> None:
        """Begin after a revision, when nothing has been published yet."""
        self._begun = revision

    def renew(self) -> None:
        """Go on with a free latch, in a forked child; the buffers are seen to by themselves."""
        self._feed_latch = Latch()

    @property
    def dropped(self) -> int:
        """How many changes full buffers have dropped."""
        return self._dropped + sum(buffer.dropped for buffer in self._buffers)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return sum(not (buffer.closed or buffer.ended) for buffer in self._buffers)

    def publish(self, commit: Commit) -> None:
        """Put a commit into the history and the buffers; the caller holds the writer mutex."""
        for buffer in self._feed_latch.during(self._put_into_history, commit):
            if buffer.closed or buffer.ended:
                self.remove(buffer)
            else:
                buffer.offer(commit)

    def _put_into_history(self, commit: Commit) -> tuple[ChangeBuffer, ...]:
        if not self._history or self._history[-1].revision < commit.revision:
            self._history.append(commit)
        return self._buffers

    def add(self, buffer: ChangeBuffer, revision: int, since: int) -> list[Commit]:
        """Have commits offered to a buffer from now on; the caller holds the table lock.

        Parameters
        ----------
        buffer : ChangeBuffer
        revision : int
            That of the last commit.
        since : int
            The revision after which the buffer is to begin, `revision` at the most.

        Returns
        -------
        commits : list of Commit
            What the history has after `since`.

        Raises
        ------
        CompactedError
            If the history does not reach back to `since`.
        """
        return self._feed_latch.during(self._add, buffer, revision, since)

    def _add(self, buffer: ChangeBuffer, revision: int, since: int) -> list[Commit]:
        oldest = self._oldest(revision)
        if since < oldest - 1:
            raise CompactedError(since, oldest)
        buffer.begin(since)
        past = [commit for commit in self._history if commit.revision > since]
        self._buffers = (*self._buffers, buffer)
        self.active = True
        return past

    def _oldest(self, revision: int) -> int:
        """Return the first revision whose changes a new watch can have."""
        if self._history:
            return self._history[0].revision
        # A history that is empty has not been given anything yet.
        return self._begun + 1 if self._history.maxlen else revision + 1

    def remove(self, buffer: ChangeBuffer) -> None:
        """Offer the buffer no more; nothing happens if it was removed before."""
        self._feed_latch.during(self._remove, buffer)

    def _remove(self, buffer: ChangeBuffer) -> None:
        if buffer in self._buffers:
            self._dropped += buffer.dropped
            self._buffers = tuple(each for each in self._buffers if each is not buffer)
            self.active = bool(self._buffers) or self._history.maxlen != 0

    def end(self) -> None:
        """Tell all watches that no more is to come."""
        for buffer in self._feed_latch.during(self._take_all):
            buffer.end()

    def _take_all(self) -> tuple[ChangeBuffer, ...]:
        buffers = self._buffers
        for buffer in buffers:
            # Whoever is struck before all have been told has closed the store all the same.
            buffer.ended = True
        self._dropped += sum(buffer.dropped for buffer in buffers)
        self._buffers = ()
        self.active = self._history.maxlen != 0
        return buffers
