"""Publishing what the log of a server has.

1. Commits are made outside the section, by any number of threads at a time, and are all read from the log.
   The transactions of this engine are in `own` before they are sent, by the identity of their commit: their
   beginning and end are events here. One of which nobody can tell what has become of it is waited for until
   the log has another commit of the revision that it would have.
2. The server may lose commits: one that was started anew without its last commits, a replica that has become
   the primary. So the identity of the commit that was published last is compared whenever the log is read.
   If the server has it no more, watches are told of a gap, listeners nothing, and the revisions of the server
   are raised above those that were seen.

Thread safety: `own` is changed by single operations of the dict; all else is done in the section.
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

#: How many of the last commits are known by their identity.
_KNOWN = 1_000


class ServerPublication(Publication):
    """How far the log of a server is published in this process.

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
        # Of those, commits of which nobody could tell, with the revisions that they have if they were made.
        self._unknown: dict[bytes, int] = {}
        # The last commits that were published. The newest one may not be `seen` yet.
        self._known: deque[Place] = deque(maxlen=_KNOWN)

    def committed(self, commit: bytes, revision: int) -> None:
        """Publish a commit of this process that was made, and forget it. Never raises an error.

        If the log cannot be read now, that is left to whoever reads it next; or if nobody listens or watches.
        """
        try:
            if self.following and self.publishes:
                self.during(self._catch_up_to, revision)
        except Exception:
            logger.debug("%s: commit %d is published later", self.log.name, revision, exc_info=True)
        else:
            self.own.pop(commit, None)

    def give_up(self, commit: bytes, revision: int) -> None:
        """Wait for the end of a commit, of which nobody can tell, only until the log has come so far."""
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
                self.lose(ahead.last.revision)  # somebody has deleted the log
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
        # It stands for commits that the server has lost, and that this process has not seen: not here.
        self.observers.lost()
        if commit.before > self.seen:
            self.lose(commit.before)
        self.seen = commit.revision

    def author_of(self, commit: Logged) -> Author | None:
        assert isinstance(commit, LoggedCommit)
        return self.own.get(commit.id) or super().author_of(commit)

    def _stand_at(self, place: Place) -> None:
        self._known.append(place)
        # Another commit may get the number of the one that was queued last.
        self._queued = None
        self.seen = place.revision
        self._let_go()

    def _let_go(self) -> None:
        """Forget the commits that the log would have by now: they were not made, and never will be."""
        for commit, revision in list(self._unknown.items()):
            if revision <= self.seen:
                self._unknown.pop(commit, None)
                self.own.pop(commit, None)

    def _place(self) -> Place:
        """Return where the commit is that was published last."""
        seen = self.seen
        return next((each for each in reversed(self._known) if each.revision == seen), Place(seen, b""))

    def _lose_with_the_server(self) -> None:
        """Tell of commits that were published, and that the server has lost. May be done again."""
        known = [each for each in reversed(self._known) if each.revision <= self.seen]
        last, common = self.log.raise_above(self.seen, b"epoch:" + token_hex(8).encode(), known)
        first = common + 1 if common >= 0 else min(chain((self.seen,), (each.revision for each in known)))
        logger.warning(
            "%s has lost %d commits or more that this process has seen (a failover, or a restart): "
            "revisions go on after %d",
            self.log.name,
            self.seen - first + 1,
            last.revision,
        )
        self.observers.lost()
        self.publisher.lose(first, last.revision)
        self._stand_at(last)
