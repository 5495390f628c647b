"""Publishing what the log has: the commits of this engine are known by their ids.

Thread safety: `own` is changed by single operations of the dict.
"""

from __future__ import annotations

from latchstore.engine.owner import Claim
from latchstore.engine.publication import Logged, Publication
from latchstore.engine.publishing import Author, LoggedAuthor, Publisher
from latchstore.redis.log import LoggedCommit, ServerLog


class ServerPublication(Publication):
    """How far the log of a server is published in this process.

    Attributes
    ----------
    own : dict of bytes to Claim or None
        The commits of this engine that are under way: who makes them, None if it is no transaction.
    """

    def __init__(self, log: ServerLog, publisher: Publisher) -> None:
        super().__init__(log, publisher)

    def renew_in_child(self) -> None:
        super().renew_in_child()
        self.own: dict[bytes, Claim | None] = {}

    def author_of(self, commit: Logged) -> Author | None:
        assert isinstance(commit, LoggedCommit)
        own = self.own.get(commit.id)
        return LoggedAuthor(commit.info) if own is None else own
