"""`FollowingEngine`: an engine that publishes the commits of all processes from its log.

Thread safety: the log is read in the section of `Publication`. The thread of a `Follower` checks for commits
of other processes while there are listeners or watches.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from latchstore.contract.errors import LockTimeoutError, StoreError
from latchstore.delivery.change_buffer import Published
from latchstore.engine.follower import Follower
from latchstore.engine.interface import Engine
from latchstore.engine.observing import CommitObserver
from latchstore.engine.owner import Route
from latchstore.engine.publication import Publication
from latchstore.engine.publishing import Publisher

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("latchstore")

#: The most commits of others that are published in one section, for which commits of this process wait.
AT_A_TIME = 500


class FollowingEngine(Engine):
    """The methods of an engine that publish the commits of other processes.

    Attributes
    ----------
    publisher : Publisher
    publication : Publication
    follower : Follower
    is_closed : bool
        Whether commits are refused.
    abandoned : deque of Route
        The routes of blocks that were freed without being exited.
    """

    publisher: Publisher
    publication: Publication
    follower: Follower
    is_closed: bool
    abandoned: deque[Route]

    @abstractmethod
    def end_abandoned(self) -> None:
        """End blocks that were freed without being exited."""

    def settle(self, purpose: str, timeout: float | None = None) -> None:
        if self.abandoned:
            self.end_abandoned()
        self.publication.during(self.publication.catch_up)
        if self.publication.following:
            self.follower.start()

    def between_commits(self, function: Callable[[int], T]) -> T:
        return self.publication.during(self._between_commits, function)

    def _between_commits(self, function: Callable[[int], T]) -> T:
        publication = self.publication
        result = function(self._caught_up())
        if self.publisher.feed.active:
            publication.publish_after_seen()
        return result

    def _caught_up(self) -> int:
        """Publish all commits; return the last published revision.

        A store can be closed whether or not its log can be read.
        """
        try:
            return self.publication.catch_up()
        except LockTimeoutError:
            raise
        except (OSError, StoreError) as error:
            if not self.is_closed:
                raise
            logger.warning(
                "closed without delivering the last commits, since the log cannot be read: %s", error
            )
            return self.publication.seen

    def past(self, since: int, revision: int) -> Iterable[Published]:
        return self.publication.past(since, revision)

    def follow(self) -> None:
        if self.is_closed or not self.publication.is_followed:
            return
        try:
            self.publication.during(self.publication.begin)
            self.follower.start()
        except LockTimeoutError:
            return  # a finalizer or signal handler in a section: the next call that checks begins
        except Exception:
            logger.exception("cannot follow the commits of other processes")

    def observe(self, observer: CommitObserver) -> None:
        """Notify an observer of all commits from now on."""
        self.publication.during(self.publication.observe, observer)
        self.follow()

    def unobserve(self, observer: CommitObserver) -> None:
        """Stop notifying an observer; acquires no lock."""
        self.publication.observers.discard(observer)

    def look(self) -> bool:
        """Publish the commits of other processes; return whether there are listeners. For the follower."""
        if self.abandoned:
            self.end_abandoned()
        return self.publication.during(self._look)

    def _look(self) -> bool:
        if self.publication.end_unless_followed():
            self.follower.forget()
            return False
        self.publication.begin()  # does something only if there are listeners and `follow` could not begin
        if not self.publisher.dispatcher.throttled:
            self.publication.catch_up(AT_A_TIME)
        return True
