"""The changes that one watch has not read yet: filled by commits, read by any number of threads.

Thread safety:

1. Whoever publishes appends a commit by one call in C. All else that is done to the changes of a buffer is
   done in its section. A reader waits for that; who publishes only tries it: a thread that is in it may be in
   the middle of a signal handler or a finalizer, and that may wait for the very lock that commits are
   published under.
2. No user code runs in the section: a change is matched by builtin code alone, and where that cannot decide
   (values with an ``==`` of their own) it is kept, and the reader decides. Whatever may be the last reference
   to an object of a user is put into `garbage`, which is emptied outside.
3. An exception from outside may end a section where a call returns. So each step first works out what is to
   be, and then assigns it with no call in between: it is made whole or not at all, and whoever comes next
   goes on from there.
4. A commit that is published again is passed over; if the first time was struck in between, it follows itself
   in the buffer, and is passed over by who reads.
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

#: Seconds after which a reader looks by itself whether there is a change: a wake-up is lost only if an
#: exception strikes the writer that was to give it.
_LOOK_AGAIN = 1.0

#: Where that is put which may be the last reference to an object of a user.
Garbage = deque[object]


class Published(Protocol):
    """What the feed reads of a commit."""

    @property
    def revision(self) -> int: ...

    @property
    def changes(self) -> Sequence[Change]: ...

    @property
    def transaction(self) -> object | None:
        """What events give as their transaction."""


class Commit(NamedTuple):
    """One commit, as it is kept in the history."""

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


class _Unread(NamedTuple):
    """What a watch has not read of one commit; readers take changes from the left, in the section.

    In place of the changes there is one `Lost` if these, and maybe those of commits before, are not known.
    """

    revision: int
    changes: deque[Change] | deque[Lost]
    transaction: object | None


class Interest:
    """Which changes a watch is meant to have.

    Parameters
    ----------
    glob : str
        A pattern that the key must match.
    terms : mapping
        Metadata items and the values that they must have, before the change or after it: so a change that
        ends a match is given as well.
    is_key : bool
        Whether `glob` is the one key, whatever characters it has.
    """

    __slots__ = ("_all", "_matches", "terms")

    def __init__(self, glob: str, terms: Mapping[str, Any], is_key: bool = False) -> None:
        self._all = glob == "*" and not terms and not is_key
        self._matches: Callable[[str], object] = glob.__eq__ if is_key else matcher(glob)
        self.terms: dict[str, Any] = dict(terms)

    def among(self, changes: Iterable[Change]) -> deque[Change]:
        """Return the changes that match or that only the reader can compare. Runs builtin code alone."""
        return deque(changes if self._all else filter(self._may_have, changes))

    def _may_have(self, change: Change) -> bool:
        key, old, new = change
        if not self._matches(key):
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
    limit : int
    latch : TryLatch
        Its section: rules 1 to 3.
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
        # Of the one that has opened the watch.
        self.thread: int = get_ident()
        self.limit: int = limit
        self._coalesce = coalesce
        # Written by whoever publishes: the last commit that was appended, or after which the buffer begins,
        # and how many changes were.
        self._revision = 0
        self._added = 0
        # Commits, the oldest first; whoever publishes appends. One that was published again follows itself.
        self._unread: deque[_Unread] = deque()
        # Guards all that follows, and taking from `_unread`.
        self.latch: TryLatch = TryLatch()
        # The last commit of which nothing is left to read, and how many changes were taken from `_unread`.
        self._done = 0
        self._removed = 0
        # The latest changes, by key, once a coalescing buffer was full, until it has been read empty.
        self._latest: OrderedDict[str, Record] = OrderedDict()
        # First and last revision of what was dropped and not reported yet.
        self._lost: Lost | None = None
        self.dropped: int = 0
        # What is outside the section: `past` is taken from by one call, the flags are only ever set.
        self.past: deque[Record] = deque()
        self.ended: bool = False
        self._closed = False
        # Those who wait for a change.
        self.waiters: Waiters = Waiters()
        # Whoever reads; when it is gone, this has an item, for which a deque, unlike a list, needs no memory.
        self._reader: weakref.ref[object] | None = None
        self._abandoned: deque[object] = deque()
        _all_buffers.add(self)

    def renew(self) -> None:
        """Go on with a free section and with nothing to read, in a forked child."""
        self.latch = TryLatch()
        self.waiters = Waiters()
        self._clear(deque())

    def belong_to(self, reader: object) -> None:
        """Have the buffer closed when nobody holds its reader any more.

        That is one ``deque.append`` in C: no lock is taken where the collector runs, and no bytecode is there
        for an exception to strike. The next commit lets go of the buffer.
        """
        self._reader = weakref.ref(reader, self._abandoned.append)

    def read_first(self, past: Iterable[Published]) -> None:
        """Have what the history had when the watch was opened read before anything else."""
        self.past.extend(
            Record(commit.revision, change, commit.transaction)
            for commit in past
            for change in self.interest.among(commit.changes)
        )

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed or bool(self._abandoned)

    # -- writing: by one thread at a time, under the lock of the engine -----------------------------

    def begin(self, revision: int) -> None:
        """Take only what is committed after a revision."""
        self._revision = revision

    def offer(self, commit: Published, garbage: Garbage) -> None:
        """Take what is of interest in a commit; may be done again. Never waits."""
        revision = commit.revision
        if revision < self._revision:
            return
        if revision > self._revision:
            changes = self.interest.among(commit.changes)
            if not changes:
                return
            added = self._added + len(changes)
            self._unread.append(_Unread(revision, changes, commit.transaction))
            # No call in between; struck before, the commit is appended twice: rule 4.
            self._added, self._revision = added, revision
        if self._is_full():
            self.latch.attempt(self._make_room, garbage)
        self.waiters.ring()

    def lose(self, first_revision: int, last_revision: int, garbage: Garbage) -> None:
        """Note that commits were made whose changes nobody has any more; may be done again. Never waits."""
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
        """Return the oldest commit of which something is left to read."""
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
        """Drop the oldest changes: whole commits, so that what is left begins after all that was lost."""
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
        """Return the first revision of what is lost when that commit is."""
        if self._lost is not None:
            return self._lost.first_revision
        first = oldest.changes[0]
        return first.first_revision if isinstance(first, Lost) else oldest.revision

    def _merge(self, garbage: Garbage) -> None:
        """Keep the latest change of each key, with the value from before the first."""
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
        """Drop what was merged before a gap, so that what is left begins after all that was lost."""
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
        """Return the next change, or what was lost before it.

        Waits `timeout` seconds for one, as long as it takes if None; None if there is none, or no more will
        come. The seconds are counted by the wait itself, whatever a test does to the clock. If the buffer
        `ended` meanwhile, changes may have come before that: to get all of them, take once more.

        Raises
        ------
        LockTimeoutError
            If this thread is in the middle of such a call: a finalizer or a signal handler calls.
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
        """Return how many changes there are to read."""
        if self.closed:
            return 0
        # A reader may take a change before the writer has counted it.
        return max(0, self._added - self._removed) + len(self._latest)

    def check(self) -> None:
        """Raise AssertionError if the counts are wrong; for tests, while nobody uses the buffer."""
        unread = [each for each in self._unread if each.revision > self._done]
        assert self._added - self._removed == sum(len(each.changes) for each in unread)
        assert [each.revision for each in unread] == sorted({each.revision for each in unread})

    def end(self) -> None:
        """Let the reader have what is here, and no more."""
        self.ended = True
        self.waiters.ring_all()

    def close(self) -> None:
        """Give up what has not been read, and wake whoever waits for more."""
        self._closed = True
        garbage: Garbage = deque()  # freed when this returns, outside the section
        # What is not cleared, as a thread is reading, is let go of with the buffer.
        self.latch.attempt(self._clear, garbage)
        self.waiters.ring_all()


# Every buffer alive, for children that this process forks: that of a watch whose store was closed is in no
# feed any more, and can be read all the same.
_all_buffers: weakref.WeakSet[ChangeBuffer] = weakref.WeakSet()


def _renew_buffers_in_child() -> None:
    others = other_threads_of_parent()
    for buffer in list(_all_buffers):
        buffer.renew()
        if buffer.thread in others:
            buffer.close()  # nobody is here to read it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_buffers_in_child)
