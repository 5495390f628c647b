"""The buffer of one watch: unread changes, filled by commits and read by any number of threads.

Thread safety:

1. The publisher appends a commit by one call in C. All other changes to a buffer are made in its section.
   Readers wait for the section; the publisher only tries to enter it: the thread inside may be running a
   signal handler or a finalizer that waits for the very lock that commits are published under.
2. No user code runs in the section: builtin code matches changes, and a change that it cannot decide (values
   with their own ``==``) is kept for the reader to decide. An object that may be the last reference to a
   user's object is put into `garbage`, which is emptied outside.
3. An exception from outside may end a section where a call returns. So each step first computes its results,
   and then assigns them with no call in between: it is done completely or not at all, and the next thread
   continues from there.
4. A commit that is published again is skipped. If the first publication was interrupted, the commit may be in
   the buffer twice in a row, and the reader skips the second one.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from typing import Any, NamedTuple, Protocol

from latchstore.contract.glob_pattern import matcher
from latchstore.contract.matching import may_match
from latchstore.contract.values import Change, cause_of, deletion
from latchstore.delivery.try_latch import TryLatch
from latchstore.delivery.waiting import Waiters, other_threads_of_parent

#: Seconds after which a reader checks without a wake-up: one is lost only if an exception interrupts the
#: writer that was to send it.
_LOOK_AGAIN = 1.0

#: Receives objects that may be the last reference to a user's object.
Garbage = deque[object]


class Published(Protocol):
    """A commit, as far as the feed reads it."""

    @property
    def revision(self) -> int: ...

    @property
    def changes(self) -> Sequence[Change]: ...

    @property
    def transaction(self) -> object | None:
        """The `transaction` of the events."""


class Commit(NamedTuple):
    """One commit in the history."""

    revision: int
    changes: Sequence[Change]
    transaction: object | None


class Record(NamedTuple):
    """One change of one commit."""

    revision: int
    change: Change
    transaction: object | None


class Lost(NamedTuple):
    """A gap: the first and the last revision of dropped changes."""

    first_revision: int
    last_revision: int


class _Unread(NamedTuple):
    """The unread changes of one commit; readers take them from the left, in the section.

    If the changes are not available, it holds one `Lost`, which may include earlier commits.
    """

    revision: int
    changes: deque[Change] | deque[Lost]
    transaction: object | None


class Interest:
    """The filter of a watch.

    Parameters
    ----------
    glob : str
        A pattern that the key must match.
    terms : mapping
        Metadata items and the values that they must have before or after the change, so that a change that
        ends a match is included.
    is_key : bool
        Whether `glob` is a literal key, whatever characters it has.
    """

    __slots__ = ("_all", "_matches", "terms")

    def __init__(self, glob: str, terms: Mapping[str, Any], is_key: bool = False) -> None:
        self._all = glob == "*" and not terms and not is_key
        self._matches: Callable[[str], object] = glob.__eq__ if is_key else matcher(glob)
        self.terms: dict[str, Any] = dict(terms)

    def among(self, changes: Iterable[Change]) -> deque[Change]:
        """Return the changes that match, or that only the reader can compare. Runs builtin code only."""
        return deque(changes if self._all else filter(self._may_have, changes))

    def _may_have(self, change: Change) -> bool:
        key, old, new = change
        if not self._matches(key):
            return False
        return not self.terms or may_match(old, self.terms) or may_match(new, self.terms)


class ChangeBuffer:
    """The unread changes of one watch.

    Parameters
    ----------
    interest : Interest
    limit : int
        The number of changes to keep.
    coalesce : bool
        Whether a full buffer keeps the latest change of each key instead of the latest changes.

    Attributes
    ----------
    limit : int
    latch : TryLatch
        Its section: rules 1 to 3.
    dropped : int
        The number of dropped changes.
    ended : bool
        Whether no more changes will come; those in the buffer can still be read.
    past : deque of Record
        The changes from the history when the watch was opened; all are older than those in the buffer.
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_added",
        "_closed",
        "_coalesce",
        "_done",
        "_latest",
        "_lost",
        "_reader",
        "_removed",
        "_revision",
        "_unread",
        "dropped",
        "ended",
        "interest",
        "latch",
        "limit",
        "past",
        "thread",
        "waiters",
    )

    def __init__(self, interest: Interest, limit: int, coalesce: bool) -> None:
        self.interest: Interest = interest
        # The thread that opened the watch.
        self.thread: int = get_ident()
        self.limit: int = limit
        self._coalesce = coalesce
        # Written by the publisher: the last commit that was appended, or after which the buffer begins, and
        # the number of changes appended.
        self._revision = 0
        self._added = 0
        # Commits, the oldest first; the publisher appends. A commit may be in it twice in a row: rule 4.
        self._unread: deque[_Unread] = deque()
        # Guards all attributes below, and removals from `_unread`.
        self.latch: TryLatch = TryLatch()
        # The last commit that was read completely, and the number of changes removed from `_unread`.
        self._done = 0
        self._removed = 0
        # The latest changes by key, from when a coalescing buffer becomes full until it is read empty.
        self._latest: OrderedDict[str, Record] = OrderedDict()
        # The first and last revision of changes that were dropped and not reported yet.
        self._lost: Lost | None = None
        self.dropped: int = 0
        # Outside the section: `past` is popped by single calls, the flags are set once and never reset.
        self.past: deque[Record] = deque()
        self.ended: bool = False
        self._closed = False
        # Readers that wait for a change.
        self.waiters: Waiters = Waiters()
        # The reader. When it is collected, this has an item; appending to a deque, unlike a list, needs no
        # memory.
        self._reader: weakref.ref[object] | None = None
        self._abandoned: deque[object] = deque()
        _all_buffers.add(self)

    def renew(self) -> None:
        """Reset the section and drop all changes, in a forked child."""
        self.latch = TryLatch()
        self.waiters = Waiters()
        self._clear(deque())

    def belong_to(self, reader: object) -> None:
        """Have the buffer closed when its reader is collected.

        The callback is one ``deque.append`` in C: where the collector runs, no lock is acquired and no
        exception can interrupt a bytecode. The next commit drops the buffer from the feed.
        """
        self._reader = weakref.ref(reader, self._abandoned.append)

    def read_first(self, past: Iterable[Published]) -> None:
        """Make changes from the history the first to be read."""
        self.past.extend(
            Record(commit.revision, change, commit.transaction)
            for commit in past
            for change in self.interest.among(commit.changes)
        )

    @property
    def closed(self) -> bool:
        """Whether the buffer has no reader any more."""
        return self._closed or bool(self._abandoned)

    # -- writing: by one thread at a time, under the lock of the engine -----------------------------

    def begin(self, revision: int) -> None:
        """Accept only commits after a revision."""
        self._revision = revision

    def offer(self, commit: Published, garbage: Garbage) -> None:
        """Append the relevant changes of a commit; may be repeated, and never waits."""
        revision = commit.revision
        if revision < self._revision:
            return
        if revision > self._revision:
            changes = self.interest.among(commit.changes)
            if not changes:
                return
            added = self._added + len(changes)
            self._unread.append(_Unread(revision, changes, commit.transaction))
            # No call in between; if interrupted before this line, the commit is appended twice: rule 4.
            self._added, self._revision = added, revision
        if self._is_full():
            self.latch.attempt(self._make_room, garbage)
        self.waiters.ring()

    def lose(self, first_revision: int, last_revision: int, garbage: Garbage) -> None:
        """Append a gap for commits whose changes are not available; may be repeated, and never waits."""
        if last_revision <= self._revision:
            return
        lost, added = Lost(first_revision, last_revision), self._added + 1
        self._unread.append(_Unread(last_revision, deque((lost,)), None))
        # No call in between, as in `offer`.
        self._added, self._revision = added, last_revision
        if self._is_full():
            self.latch.attempt(self._make_room, garbage)
        self.waiters.ring()

    # -- in the section -----------------------------------------------------------------------------

    def _is_full(self) -> bool:
        return self._added - self._removed > self.limit or bool(self._latest)

    def _make_room(self, garbage: Garbage) -> None:
        if self._coalesce:
            self._merge(garbage)
        else:
            self._drop(garbage)

    def _oldest(self, garbage: Garbage) -> _Unread | None:
        """Return the oldest commit with unread changes."""
        unread = self._unread
        while unread:
            oldest = unread[0]
            if oldest.changes and oldest.revision > self._done:
                return oldest
            garbage.append(oldest)
            self._done = oldest.revision
            del unread[0]
        return None

    def _drop(self, garbage: Garbage) -> None:
        """Drop the oldest changes, whole commits, so that all remaining ones come after the gap."""
        unread = self._unread
        while self._added - self._removed > self.limit and (oldest := self._oldest(garbage)) is not None:
            garbage.append(oldest)
            count = len(oldest.changes)
            lost = Lost(self._first_lost(oldest), oldest.revision)
            removed, dropped = self._removed + count, self.dropped
            if not isinstance(oldest.changes[0], Lost):
                dropped += count
            # No call from here on: rule 3.
            self._lost = lost
            self._removed = removed
            self.dropped = dropped
            self._done = oldest.revision
            del unread[0]

    def _first_lost(self, oldest: _Unread) -> int:
        """Return the first revision of the gap if that commit is dropped."""
        if self._lost is not None:
            return self._lost.first_revision
        first = oldest.changes[0]
        return first.first_revision if isinstance(first, Lost) else oldest.revision

    def _merge(self, garbage: Garbage) -> None:
        """Keep the latest change of each key, with the value from before its first change."""
        while (oldest := self._oldest(garbage)) is not None:
            change = oldest.changes[0]
            if isinstance(change, Lost):
                self._drop_latest(oldest, garbage)
                continue
            latest = self._latest
            key, old, new = change
            earlier = latest.get(key)
            garbage.append((change, earlier))
            dropped = self.dropped
            if earlier is not None:
                dropped += 1
                old = earlier.change[1]
                latest.move_to_end(key)
            merged = None
            if old is not None or new is not None:
                change = (key, old, new) if new is not None else deletion(key, old, cause_of(change))
                merged = Record(oldest.revision, change, oldest.transaction)
            removed = self._removed + 1
            # No call from here on: rule 3.
            if merged is not None:
                latest[key] = merged
            elif earlier is not None:
                del latest[key]
            self.dropped = dropped
            self._removed = removed
            del oldest.changes[0]

    def _drop_latest(self, gap: _Unread, garbage: Garbage) -> None:
        """Drop the changes merged before a gap, so that all remaining ones come after it."""
        latest, empty = self._latest, OrderedDict[str, Record]()
        garbage.append(latest)
        first = min([self._first_lost(gap), *(record.revision for record in latest.values())])
        lost = Lost(first, gap.revision)
        removed, dropped = self._removed + 1, self.dropped + len(latest)
        # No call from here on: rule 3.
        self._lost = lost
        self._latest = empty
        self.dropped = dropped
        self._removed = removed
        del gap.changes[0]

    def _take(self, garbage: Garbage) -> Record | Lost | None:
        if self._is_full():
            self._make_room(garbage)
        taken: Record | Lost | None
        if (taken := self._lost) is not None:
            self._lost = None
        elif self._latest:
            latest = self._latest
            key = next(iter(latest))
            taken = latest[key]
            del latest[key]
        elif (oldest := self._oldest(garbage)) is not None:
            first = oldest.changes[0]
            taken = first if isinstance(first, Lost) else Record(oldest.revision, first, oldest.transaction)
            removed = self._removed + 1
            # No call from here on: rule 3.
            del oldest.changes[0]
            self._removed = removed
        return taken

    def _clear(self, garbage: Garbage) -> None:
        garbage.extend((self.past, self._unread, self._latest))
        self.past, self._unread, self._latest = deque(), deque(), OrderedDict()
        self._lost = None
        self._removed = self._added

    # -- reading ------------------------------------------------------------------------------------

    def take(self, timeout: float | None) -> Record | Lost | None:
        """Return the next change, or a gap before it.

        Waits at most `timeout` seconds, without limit if None; returns None if no change came or none will.
        The wait itself counts the seconds, so a test that replaces the clock does not affect it. If the
        buffer `ended` during the wait, changes may have come before the end: call `take` again to get them.

        Raises
        ------
        LockTimeoutError
            If a finalizer or signal handler calls it in the middle of such a call of the same thread.
        """
        taken = self._look()
        if taken is None and timeout != 0:
            found: list[Record | Lost | None] = [None]

            def found_or_over() -> bool:
                found[0] = self._look()
                return found[0] is not None or self.ended or self.closed

            seconds = -1.0 if timeout is None else timeout
            self.waiters.wait(found_or_over, seconds, yields=0, look_again=_LOOK_AGAIN)
            taken = found[0]
        return taken

    def _look(self) -> Record | Lost | None:
        garbage: Garbage = deque()  # freed when this returns, outside the section
        return self.latch.during(self._take, garbage)

    def __len__(self) -> int:
        """Return the number of changes to read."""
        if self.closed:
            return 0
        # A reader may take a change before the writer has counted it.
        return max(0, self._added - self._removed) + len(self._latest)

    def check(self) -> None:
        """Raise AssertionError if the counts are wrong; for tests, while no other thread uses the buffer."""
        unread = [each for each in self._unread if each.revision > self._done]
        assert self._added - self._removed == sum(len(each.changes) for each in unread)
        assert [each.revision for each in unread] == sorted({each.revision for each in unread})

    def end(self) -> None:
        """Accept no more changes; those in the buffer can still be read."""
        self.ended = True
        self.waiters.ring_all()

    def close(self) -> None:
        """Drop the unread changes and wake waiting readers."""
        self._closed = True
        garbage: Garbage = deque()  # freed when this returns, outside the section
        # If a reader is in the section, the changes are freed with the buffer.
        self.latch.attempt(self._clear, garbage)
        self.waiters.ring_all()


# All existing buffers, for forked children: the buffer of a watch whose store was closed is in no feed
# any more, but can still be read.
_all_buffers: weakref.WeakSet[ChangeBuffer] = weakref.WeakSet()


def _renew_buffers_in_child() -> None:
    others = other_threads_of_parent()
    for buffer in list(_all_buffers):
        buffer.renew()
        if buffer.thread in others:
            buffer.close()  # its reader does not exist in this process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_buffers_in_child)
