"""Publication of an engine's log in this process: each commit once, in order.

For engines that have a log of their commits, and whose entries other processes change as well.

1. The log is the journal. `seen` is the revision up to which this process has published; any thread may
   publish the commits after it (`catch_up`). So if an exception interrupts between a commit and its
   publication, the next thread that checks completes it: a follower, a flush, a new watch, a commit.
2. The deliveries of a commit are kept in `_queued` until `seen` has passed it: after an exception the same
   deliveries are queued again, and delivered once.
3. While there are no listeners, watches and observers, the commits of other processes are skipped, and `seen`
   need not be up to date. `following` is set, at the current revision, in the section in which the first one
   begins; `publishes` likewise, but not for observers. So earlier commits are not delivered.
4. Observers (``observing.py``) are notified of a commit before it is queued, and of the time of a read of the
   log once everything that it found is published.

Thread safety: everything is done in the section of the latch. No user code runs in it; objects dropped there
are freed outside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar, TypeVarTuple

from latchstore.contract.errors import CompactedError
from latchstore.contract.late_values import keys_of
from latchstore.contract.values import Change
from latchstore.delivery.awaiting import in_thread
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
    """A commit in a log."""

    @property
    def revision(self) -> int:
        """The revision of the commit."""

    @property
    def changes(self) -> Sequence[Change]:
        """The changes of the commit."""

    @property
    def info(self) -> TransactionInfo | None:
        """The `TransactionInfo` for events; None if it was not a transaction."""


class CommitLog(Protocol):
    """The log of an engine: the latest commits of all processes, by revision."""

    @property
    def name(self) -> str:
        """The name of the store, for messages."""

    def last(self) -> int:
        """Return the revision of the last commit."""

    def replay(self, after: int, until: int, function: Callable[[Logged], None]) -> None:
        """Call an internal function with each commit after one revision up to another that is in the log."""

    def between(self, after: int, until: int) -> tuple[Iterable[Logged], int | None]:
        """Return these commits, read at one instant, and the first revision in the log, or None."""


#: The revision of a commit in the log, and the arguments of its publisher besides the changes.
Queued = tuple[int, Author | None, Sequence[Delivery]]


class Publication:
    """The progress of publishing the log in this process.

    Parameters
    ----------
    log : CommitLog
    publisher : Publisher

    Attributes
    ----------
    seen : int
    following : bool
        Whether the log is read, at least for observers.
    publishes : bool
        Whether the commits of other processes are published.
    observers : Observers
    """

    def __init__(self, log: CommitLog, publisher: Publisher) -> None:
        self.log: CommitLog = log
        self.publisher: Publisher = publisher
        self.seen: int = 0
        self.observers: Observers = Observers()
        self.renew_in_child()

    def renew_in_child(self) -> None:
        """Reset to a free section and no followers."""
        # The section in which the log is read and published, and watches are opened; held for one read.
        # Engines may also make commits in it, to tell their own from those of other processes.
        self._latch = Latch()
        self.following: bool = False
        self.publishes: bool = False
        # The last deliveries queued from the log: rule 2.
        self._queued: Queued | None = None
        self.observers.renew_in_child()

    @property
    def is_followed(self) -> bool:
        """Whether there is a listener, watch or observer."""
        return self.publisher.is_followed or bool(self.observers)

    def during(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Call an internal function in the section; then free dropped objects and start deliveries.

        Raises
        ------
        LockTimeoutError
            If this thread is in the section, so a finalizer or signal handler calls.
        """
        try:
            # Not by a task: it would wait for a server in the section.
            return in_thread(partial(self._latch.during, function, *arguments))
        finally:
            self.publisher.garbage.clear()
            self.publisher.dispatcher.start_if_needed()

    # -- in the section ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Follow the log from the last commit on, and publish other processes' commits to listeners."""
        is_followed = self.publisher.is_followed
        if not self.following or (is_followed and not self.publishes):
            self.stand_at_last()
            self.observers.lost()
            self.following = True
            self.publishes = is_followed

    def stand_at_last(self) -> None:
        """Regard all commits so far as published."""
        self.seen = self.log.last()

    def publish_after_seen(self) -> None:
        """Publish the commits of other processes after `seen`, from now on."""
        if not self.following:
            self.observers.lost()
            self.following = True
        self.publishes = True

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of what is published from now on."""
        observer.lost()
        self.observers.add(observer)

    def end_unless_followed(self) -> bool:
        """Stop reading the log if it is not followed; return whether it was stopped."""
        if not self.publisher.is_followed:
            self.publishes = False
            self.following = self.following and bool(self.observers)
        return not self.following

    def catch_up(self, most: int | None = None) -> int:
        """Publish commits, at most `most`; return the revision of the last published one."""
        begun = clock()
        revision = self.log.last()
        if revision > self.seen:
            self.publish_until(revision if most is None else min(revision, self.seen + most))
        if self.following and self.seen >= revision:
            self.observers.proved(begun)
        return self.seen

    def publish_until(self, revision: int) -> None:
        """Publish the commits up to a revision, which is after `seen`."""
        if not self.following:
            self.seen = revision
            return
        self.log.replay(self.seen, revision, self.publish_logged)
        if revision > self.seen:
            self.lose(revision)

    def publish_logged(self, commit: Logged) -> None:
        """Publish a commit of the log, and mark commits before it that are missing in the log as lost."""
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
        """Publish the commit after `seen`, of any process. May be repeated."""
        self._notify(changes)
        self.publisher.publish(changes, revision, author, deliveries)
        self.seen = revision

    def _notify(self, changes: Sequence[Change]) -> None:
        if self.observers:
            self.observers.changed(keys_of(changes))

    def queued_of(self, commit: Logged) -> Queued:
        """Return the deliveries for a commit in the log."""
        author = self.author_of(commit)
        return commit.revision, author, self.publisher.deliveries_of(commit.changes, commit.revision, author)

    def author_of(self, commit: Logged) -> Author | None:
        """Return the author of a commit in the log; an engine returns the claim of its own commits."""
        return LoggedAuthor(commit.info)

    def lose(self, until: int) -> None:
        """Skip commits that are missing in the log."""
        logger.warning(
            "%s: %d commits were deleted from the log before this process read them; raise history=",
            self.log.name,
            until - self.seen,
        )
        self.observers.lost()
        self.publisher.lose(self.seen + 1, until)
        self.seen = until

    def past(self, since: int, revision: int) -> Iterator[Commit]:
        """Return the commits after one revision up to another; raise CompactedError if some are missing."""
        if since >= revision:
            return iter(())
        commits, oldest = self.log.between(since, revision)
        if oldest is None or since < oldest - 1:
            raise CompactedError(since, revision + 1 if oldest is None else oldest)
        return (Commit(commit.revision, commit.changes, commit.info) for commit in commits)
