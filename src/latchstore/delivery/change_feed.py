"""What was committed, for those who read it at their own pace: a history, and a buffer for each watch.

Those who wait for a change and do not need to know which have a signal in place of a buffer.

Thread safety:

1. The feed has no lock of its own: `ChangeFeed.publish`, `lose`, `past`, `add`, `add_signal` and `end` are
   called by one thread at a time, under the lock that commits are published under. `active`, `watches` and
   `dropped` are read without it.
2. Publishing a commit again publishes what is missing of it: the revisions show what is there already.
3. `publish` never waits, and frees no object of a user: what the feed lets go of is put into `garbage`, which
   the caller empties once the lock has been given back.
4. A buffer whose reader is gone is closed, wherever the collector runs, and so is a signal whose user is. The
   next commit lets go of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from latchstore.contract.errors import CompactedError
from latchstore.delivery.change_buffer import ChangeBuffer, Commit, Garbage, Published
from latchstore.delivery.commit_signal import CommitSignal

#: Buffers that may be closed and not let go of yet.
_FEW = 64


class ChangeFeed:
    """The history of one store, and the buffers of its watches.

    Parameters
    ----------
    history : int
        How many of the last commits are kept; 0 if the engine keeps them elsewhere.
    garbage : deque, optional
        What the feed lets go of is appended here, for the caller to clear outside its lock. By default it is
        freed at once.

    Attributes
    ----------
    active : bool
        Whether commits need be published at all.
    buffers : tuple of ChangeBuffer
        Those of its watches, in the order in which these were opened.
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
        # So many that whoever adds one lets go of those that were closed.
        self._look_at = _FEW
        # What buffers that are gone have dropped.
        self._dropped = 0
        self.active: bool = history > 0
        # The revision after which changes are published.
        self._begun = 0

    @property
    def dropped(self) -> int:
        """How many changes full buffers have dropped."""
        return self._dropped + sum(buffer.dropped for buffer in self.buffers)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return sum(not (buffer.closed or buffer.ended) for buffer in self.buffers)

    # -- by one thread at a time, under the lock of the engine ---------------------------------------

    def begin(self, revision: int) -> None:
        """Begin after a revision, when nothing has been published yet."""
        self._begun = revision

    def publish(self, commit: Published) -> None:
        """Put a commit into the history and the buffers; may be done again, and never waits."""
        self._keep(commit)
        if closed := [buffer for buffer in self.buffers if buffer.closed]:
            self._let_go_of(closed)
        for buffer in self.buffers:
            buffer.offer(commit, self._garbage)
        if self.signals:
            self._give_signals(commit)

    def lose(self, first_revision: int, last_revision: int) -> None:
        """Have watches marked with a gap: these commits were made, and can be published no more.

        May be done again, and never waits.
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
        """Have a signal be given all commits from now on; nothing happens if it is."""
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
        gone = frozenset(buffers)  # there may be many of them, and writers wait
        kept = tuple(buffer for buffer in self.buffers if buffer not in gone)
        dropped = self._dropped + sum(buffer.dropped for buffer in buffers)
        # No call from here on, so that nothing is counted twice if this is done again.
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
        """Have the commits after a revision, that of the last one, offered to a buffer."""
        # The last commit may be published again.
        buffer.begin(revision)
        if len(self.buffers) >= self._look_at:
            # Nobody may write, and watches come and go.
            self._let_go_of([other for other in self.buffers if other.closed])
            self._look_at = _FEW + 2 * len(self.buffers)
        self.buffers = (*self.buffers, buffer)
        self.active = True

    def _oldest(self, revision: int) -> int:
        """Return the first revision whose changes a new watch can have."""
        if self._history:
            return self._history[0].revision
        # A history that is empty has not been given anything yet.
        return self._begun + 1 if self._limit else revision + 1

    def end(self) -> None:
        """Tell all watches, and all who wait, that no more is to come."""
        buffers, signals = self.buffers, self.signals
        for buffer in buffers:
            # Whoever is struck before all have been woken has closed the store all the same.
            buffer.ended = True
        for signal in signals:
            signal.ended = True
        for buffer in buffers:
            buffer.end()
        for signal in signals:
            signal.end()
        self._set_signals(())
        self._let_go_of(buffers)
