"""Publishes the commits in the log of a server.

1. Commits are made outside the section, by any number of threads at a time, and are all read from the log.
   The transactions of this engine are in `own` before they are sent, by the identification of their commit:
   for these there are events for begin and end. If the outcome of one is unknown, it is awaited until the log
   has another commit of the revision that it would have.
2. The server may lose commits: by a restart without its last commits, or when a replica becomes the primary.
   So the identification of the last published commit is compared whenever the log is read. If the server does
   not have it any more, watches report a gap, listeners get no event, and the revisions of the server are
   raised above those that were seen.

Thread safety: `own` is changed by single operations of the dict; everything else runs in the section.
"""

from __future__ import annotations

import logging
from collections import deque
from itertools import chain
from secrets import token_hex

from latchstore.delivery.waiting import clock
from latchstore.engine.owner import Claim
from latchstore.engine.publication import Logged, Publication
from latchstore.engine.publishing import Author, Publisher
from latchstore.redis.log import LoggedCommit, Place, ServerLog

logger: logging.Logger = logging.getLogger("latchstore")

#: Number of last commits whose identification is kept.
_KNOWN = 1_000


class ServerPublication(Publication):
    """The state of publication of a server's log in this process.

    Attributes
    ----------
    own : dict of bytes to Claim
        Transactions of this engine whose commit was sent, and is not published.
    """

    log: ServerLog

    def __init__(self, log: ServerLog, publisher: Publisher) -> None:
        super().__init__(log, publisher)

    def renew_in_child(self) -> None:
        super().renew_in_child()
        self.own: dict[bytes, Claim] = {}
        # Of those, commits of unknown outcome, with the revisions that they have if they were made.
        self._unknown: dict[bytes, int] = {}
        # The last published commits. The newest one may not be `seen` yet.
        self._known: deque[Place] = deque(maxlen=_KNOWN)

    def committed(self, commit: bytes, revision: int) -> None:
        """Publish a commit of this process that was made, and forget it. Never raises an error.

        If the log cannot be read now, or nobody listens or watches, a later reader of the log publishes it.
        """
        try:
            if self.following and self.publishes:
                self.during(self._catch_up_to, revision)
        except Exception:
            logger.debug("%s: commit %d is published later", self.log.name, revision, exc_info=True)
        else:
            self.own.pop(commit, None)

    def give_up(self, commit: bytes, revision: int) -> None:
        """Await the end of a commit of unknown outcome only until the log has reached its revision."""
        if self.following:
            self._unknown[commit] = revision
        else:
            self.own.pop(commit, None)

    # -- in the section ---------------------------------------------------------------------------

    def stand_at_last(self) -> None:
        self._stand_at(self.log.place())

    def _catch_up_to(self, revision: int) -> None:
        if self.seen < revision:
            self.catch_up()

    def catch_up(self, most: int | None = None) -> int:
        if not self.following:
            self.stand_at_last()
            return self.seen
        begun, until = clock(), None
        while True:
            ahead = self.log.after(self._place()) if most is None else self.log.after(self._place(), most)
            if ahead.is_lost:
                self._lose_with_the_server()
                continue
            for commit in ahead.commits:
                self.publish_logged(commit)
            if not ahead.commits and self.seen < ahead.last.revision:
                self.lose(ahead.last.revision)  # the log was deleted
            if until is None:
                until = ahead.last.revision
            if self.seen >= until:
                self.observers.proved(begun)
            if self.seen >= until or most is not None:
                return self.seen

    def publish_logged(self, commit: Logged) -> None:
        assert isinstance(commit, LoggedCommit)
        place = Place(commit.revision, commit.id)
        if not self._known or self._known[-1] != place:
            self._known.append(place)
        if commit.before == commit.revision - 1:
            super().publish_logged(commit)
            self.own.pop(commit.id, None)
            self._let_go()
            return
        # It represents commits that the server has lost, and that this process has not seen: not here.
        self.observers.lost()
        if commit.before > self.seen:
            self.lose(commit.before)
        self.seen = commit.revision

    def author_of(self, commit: Logged) -> Author | None:
        assert isinstance(commit, LoggedCommit)
        return self.own.get(commit.id) or super().author_of(commit)

    def _stand_at(self, place: Place) -> None:
        self._known.append(place)
        # Another commit may get the revision of the one that was queued last.
        self._queued = None
        self.seen = place.revision
        self._let_go()

    def _let_go(self) -> None:
        """Forget commits that the log would have by now: they were not made, and never will be."""
        for commit, revision in list(self._unknown.items()):
            if revision <= self.seen:
                self._unknown.pop(commit, None)
                self.own.pop(commit, None)

    def _place(self) -> Place:
        """Return the place of the last published commit."""
        seen = self.seen
        return next((each for each in reversed(self._known) if each.revision == seen), Place(seen, b""))

    def _lose_with_the_server(self) -> None:
        """Report commits that were published and that the server has lost. May be repeated."""
        known = [each for each in reversed(self._known) if each.revision <= self.seen]
        last, common = self.log.raise_above(self.seen, b"epoch:" + token_hex(8).encode(), known)
        first = common + 1 if common >= 0 else min(chain((self.seen,), (each.revision for each in known)))
        logger.warning(
            "%s has lost %d commits or more that this process has seen (a failover, or a restart): "
            "revisions continue after %d",
            self.log.name,
            self.seen - first + 1,
            last.revision,
        )
        self.observers.lost()
        self.publisher.lose(first, last.revision)
        self._stand_at(last)
