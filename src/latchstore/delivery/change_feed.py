"""The change feed of a store: a history of commits, and a buffer for each watch.

A waiter that needs no details of the changes has a signal instead of a buffer.

Thread safety:

1. The feed has no lock of its own: `ChangeFeed.publish`, `lose`, `past`, `add`, `add_signal` and `end` are
   called by one thread at a time, under the lock that commits are published under. `active`, `watches` and
   `dropped` are read without it.
2. Publishing a commit again completes an interrupted publication: revisions show what is already there.
3. `publish` never waits and frees no user object: objects that the feed releases are put into `garbage`,
   which the caller empties after releasing the lock.
4. A buffer is closed when its reader is collected, wherever the collector runs, and so is a signal with its
   user. The next commit drops them from the feed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from latchstore.contract.errors import CompactedError
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Garbage, Published
from latchstore.delivery.commit_signal import CommitSignal

#: Closed buffers that the feed may hold before `add` drops them.
_FEW = 64


class ChangeFeed:
    """The history of one store, and the buffers of its watches.

    Parameters
    ----------
    history : int
        The number of commits to keep; 0 if the engine keeps them elsewhere.
    garbage : deque, optional
        Receives the objects that the feed releases, for the caller to clear outside its lock. By default they
        are freed at once.

    Attributes
    ----------
    active : bool
        Whether commits need to be published at all.
    buffers : tuple of ChangeBuffer
        The buffers of the watches, in the order in which the watches were opened.
    signals : tuple of CommitSignal
    """

    __slots__ = (
        "_begun",
        "_dropped",
        "_garbage",
        "_history",
        "_limit",
        "_look_at",
        "active",
        "buffers",
        "signals",
    )

    def __init__(self, history: int, garbage: Garbage | None = None) -> None:
        self._garbage: Garbage = deque(maxlen=0) if garbage is None else garbage
        self._limit = history
        self._history: deque[Commit] = deque()
        self.buffers: tuple[ChangeBuffer, ...] = ()
        self.signals: tuple[CommitSignal, ...] = ()
        # At this number of buffers, `add` drops the closed ones.
        self._look_at = _FEW
        # The changes dropped by buffers that are no longer in the feed.
        self._dropped = 0
        self.active: bool = history > 0
        # The revision after which changes are published.
        self._begun = 0

    @property
    def dropped(self) -> int:
        """The number of changes that full buffers have dropped."""
        return self._dropped + sum(buffer.dropped for buffer in self.buffers)

    @property
    def watches(self) -> int:
        """The number of open watches."""
        return sum(not (buffer.closed or buffer.ended) for buffer in self.buffers)

    # -- by one thread at a time, under the lock of the engine ---------------------------------------

    def begin(self, revision: int) -> None:
        """Set the revision after which publishing begins; called before anything is published."""
        self._begun = revision

    def publish(self, commit: Published) -> None:
        """Put a commit into the history and the buffers; may be repeated, and never waits."""
        self._keep(commit)
        if closed := [buffer for buffer in self.buffers if buffer.closed]:
            self._let_go_of(closed)
        for buffer in self.buffers:
            buffer.offer(commit, self._garbage)
        if self.signals:
            self._give_signals(commit)

    def lose(self, first_revision: int, last_revision: int) -> None:
        """Mark a gap in all watches: these commits were made, but their changes are not available.

        May be repeated, and never waits.
        """
        for buffer in self.buffers:
            buffer.lose(first_revision, last_revision, self._garbage)
        for signal in self.signals:
            signal.waiters.ring_all()

    def _give_signals(self, commit: Published) -> None:
        if any(signal.closed for signal in self.signals):
            self._set_signals(tuple([signal for signal in self.signals if not signal.closed]))
        for signal in self.signals:
            signal.offer(commit)

    def _set_signals(self, signals: tuple[CommitSignal, ...]) -> None:
        self._garbage.append(self.signals)
        self.active = bool(signals or self.buffers) or self._limit > 0
        self.signals = signals

    def add_signal(self, signal: CommitSignal) -> None:
        """Add a signal, which receives all later commits; do nothing if it was added before."""
        if signal not in self.signals:
            self._set_signals((*[other for other in self.signals if not other.closed], signal))

    def _keep(self, commit: Published) -> None:
        history = self._history
        if self._limit and (not history or history[-1].revision < commit.revision):
            history.append(Commit(commit.revision, commit.changes, commit.transaction))
        while len(history) > self._limit:
            self._garbage.append(history[0])
            del history[0]

    def _let_go_of(self, buffers: Sequence[ChangeBuffer]) -> None:
        self._garbage.extend(buffers)
        gone = frozenset(buffers)  # a set, since there may be many and writers are blocked
        kept = tuple(buffer for buffer in self.buffers if buffer not in gone)
        dropped = self._dropped + sum(buffer.dropped for buffer in buffers)
        # No call from here on, so that a repetition after an interruption counts nothing twice.
        self.buffers = kept
        self._dropped = dropped
        self.active = bool(kept or self.signals) or self._limit > 0

    def past(self, since: int, revision: int) -> list[Commit]:
        """Return the commits of the history after `since`; `revision` is that of the last commit.

        Raises
        ------
        CompactedError
            If the history does not reach back to `since`.
        """
        oldest = self._oldest(revision)
        if since < oldest - 1:
            raise CompactedError(since, oldest, off=not self._limit)
        return [commit for commit in self._history if commit.revision > since]

    def add(self, buffer: ChangeBuffer, revision: int) -> None:
        """Add a buffer, which receives the commits after `revision`, that of the last one."""
        # The last commit may be published again.
        buffer.begin(revision)
        if len(self.buffers) >= self._look_at:
            # Without writes, no commit drops the closed ones.
            self._let_go_of([other for other in self.buffers if other.closed])
            self._look_at = _FEW + 2 * len(self.buffers)
        self.buffers = (*self.buffers, buffer)
        self.active = True

    def _oldest(self, revision: int) -> int:
        """Return the first revision whose changes are available to a new watch."""
        if self._history:
            return self._history[0].revision
        # An empty history has received no commit yet.
        return self._begun + 1 if self._limit else revision + 1

    def end(self) -> None:
        """End all watches and waits: no more commits will come."""
        buffers, signals = self.buffers, self.signals
        for buffer in buffers:
            # Set first: if this thread is interrupted before all are woken, the store is closed anyway.
            buffer.ended = True
        for signal in signals:
            signal.ended = True
        for buffer in buffers:
            buffer.end()
        for signal in signals:
            signal.end()
        self._set_signals(())
        self._let_go_of(buffers)
