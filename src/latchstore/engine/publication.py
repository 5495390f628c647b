"""Publishing what the log of an engine has, in this process, in the order of the commits, once each.

For engines whose entries other processes change as well, and that have a log of their commits.

1. The log is the journal. `seen` is the revision up to which this process has published; whoever comes reads
   what the log has after it (`catch_up`). So what an exception has broken off between a commit and its
   publication is made good by the next one who looks: a follower, a flush, a new watch, a commit.
2. What is queued of a commit in the log is kept in `_queued` until `seen` has passed it: after an exception
   the same is queued again, and is delivered once.
3. While nobody listens, no watch is open and nothing observes, the commits of others are passed over, and
   `seen` need not be up to date. `following` is set, at the revision of that moment, in the section in which
   somebody begins to; and likewise `publishes`, which is not for observers. So nobody is told of what was
   committed before.
4. Observers (``observing.py``) are notified of a commit before it is queued for anybody, and of the time of
   a look at the log when all that it has found is published.

Thread safety: all is done in the section of the latch. No user code runs in it; what is dropped there is
freed outside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, TypeVarTuple

from latchstore.contract.errors import CompactedError
from latchstore.contract.late_values import keys_of
from latchstore.contract.values import Change
from latchstore.delivery.change_buffer import Commit
from latchstore.delivery.dispatcher import Delivery
from latchstore.delivery.waiting import Latch, clock
from latchstore.engine.observing import CommitObserver, Observers
from latchstore.engine.owner import TransactionInfo
from latchstore.engine.publishing import Author, LoggedAuthor, Publisher

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger: logging.Logger = logging.getLogger("latchstore")


class Logged(Protocol):
    """A commit as a log has it."""

    @property
    def revision(self) -> int:
        """Its revision."""

    @property
    def changes(self) -> Sequence[Change]:
        """What it has changed."""

    @property
    def info(self) -> TransactionInfo | None:
        """What events have of the transaction; None if it was none."""


class CommitLog(Protocol):
    """The log of an engine: the last commits of all processes, by revision."""

    @property
    def name(self) -> str:
        """Of the store, for messages."""

    def last(self) -> int:
        """Return the revision of the last commit."""

    def replay(self, after: int, until: int, function: Callable[[Logged], None]) -> None:
        """Call a function of ours with each commit after a revision up to another that the log still has."""

    def between(self, after: int, until: int) -> tuple[Iterable[Logged], int | None]:
        """Return the same, read at one instant, with the first revision that the log has; None if none."""


#: The revision of a commit of the log, and what its publisher is given beside the changes.
Queued = tuple[int, Author | None, Sequence[Delivery]]


class Publication:
    """How far the log is published in this process.

    Parameters
    ----------
    log : CommitLog
    publisher : Publisher

    Attributes
    ----------
    seen : int
    following : bool
        Whether the log is read, for observers at the least.
    publishes : bool
        Whether the commits of others are published.
    observers : Observers
    """

    def __init__(self, log: CommitLog, publisher: Publisher) -> None:
        self.log: CommitLog = log
        self.publisher: Publisher = publisher
        self.seen: int = 0
        self.observers: Observers = Observers()
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Begin with a free section, and with nobody following."""
        # The section in which the log is read and published, and watches opened: the time of a read. Commits
        # are made in it as well if that is how an engine keeps its own apart from others.
        self._latch = Latch()
        self.following: bool = False
        self.publishes: bool = False
        # What of the log was queued last: rule 2.
        self._queued: Queued | None = None
        self.observers.renew_in_child()

    @property
    def is_followed(self) -> bool:
        """Whether anybody listens to what is committed, watches or observes it."""
        return self.publisher.is_followed or bool(self.observers)

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call a function of ours in the section; free what was dropped in it, and have listeners called.

        Raises
        ------
        LockTimeoutError
            If this thread is in the section: a finalizer or a signal handler calls.
        """
        try:
            return self._latch.during(function, *arguments)
        finally:
            self.publisher.garbage.clear()
            self.publisher.dispatcher.start_if_needed()

    # -- in the section ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Read the log from the last commit on, and publish what others commit if anybody listens."""
        is_followed = self.publisher.is_followed
        if not self.following or (is_followed and not self.publishes):
            self.stand_at_last()
            self.observers.lost()
            self.following = True
            self.publishes = is_followed

    def stand_at_last(self) -> None:
        """Take all that is committed to have been published."""
        self.seen = self.log.last()

    def publish_after_seen(self) -> None:
        """Publish what others have committed after `seen`, from now on."""
        if not self.following:
            self.observers.lost()
            self.following = True
        self.publishes = True

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of what is published from now on."""
        observer.lost()
        self.observers.add(observer)

    def end_unless_followed(self) -> bool:
        """Read the log no more if nobody needs that; return whether that is so."""
        if not self.publisher.is_followed:
            self.publishes = False
            self.following = self.following and bool(self.observers)
        return not self.following

    def catch_up(self, most: int | None = None) -> int:
        """Publish what is committed, `most` commits at the most; return the revision of the last one."""
        begun = clock()
        revision = self.log.last()
        if revision > self.seen:
            self.publish_until(revision if most is None else min(revision, self.seen + most))
        if self.following and self.seen >= revision:
            self.observers.proved(begun)
        return self.seen

    def publish_until(self, revision: int) -> None:
        """Publish what is committed up to a revision, which is after `seen`."""
        if not self.following:
            self.seen = revision
            return
        self.log.replay(self.seen, revision, self.publish_logged)
        if revision > self.seen:
            self.lose(revision)

    def publish_logged(self, commit: Logged) -> None:
        """Publish a commit of the log, and tell of those before it that the log has no more."""
        revision = commit.revision
        if revision > self.seen + 1:
            self.lose(revision - 1)
        if not self.publishes:
            self._notify(commit.changes)
            self.seen = revision
            return
        if self._queued is None or self._queued[0] != revision:
            self._queued = self.queued_of(commit)
        _, author, deliveries = self._queued
        self.publish_changes(commit.changes, revision, author, deliveries)

    def publish_changes(
        self,
        changes: Sequence[Change],
        revision: int,
        author: Author | None,
        deliveries: Sequence[Delivery],
    ) -> None:
        """Publish the commit that comes after `seen`, whoever has made it. May be done again."""
        self._notify(changes)
        self.publisher.publish(changes, revision, author, deliveries)
        self.seen = revision

    def _notify(self, changes: Sequence[Change]) -> None:
        if self.observers:
            self.observers.changed(keys_of(changes))

    def queued_of(self, commit: Logged) -> Queued:
        """Return what is queued of a commit in the log."""
        author = self.author_of(commit)
        return commit.revision, author, self.publisher.deliveries_of(commit.changes, commit.revision, author)

    def author_of(self, commit: Logged) -> Author | None:
        """Return who has made a commit in the log; an engine that finds its own there returns their claim."""
        return LoggedAuthor(commit.info)

    def lose(self, until: int) -> None:
        """Pass over commits that the log does not have any more."""
        logger.warning(
            "%s: %d commits were deleted from the log before this process has read them (history)",
            self.log.name,
            until - self.seen,
        )
        self.observers.lost()
        self.publisher.lose(self.seen + 1, until)
        self.seen = until

    def past(self, since: int, revision: int) -> Iterator[Commit]:
        """Return the commits after one revision up to another; CompactedError if the log lacks some."""
        if since >= revision:
            return iter(())
        commits, oldest = self.log.between(since, revision)
        if oldest is None or since < oldest - 1:
            raise CompactedError(since, revision + 1 if oldest is None else oldest)
        return (Commit(commit.revision, commit.changes, commit.info) for commit in commits)
