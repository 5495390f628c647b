"""The first values of ranges of a metadata item, for work queues: found by the index on the item.

Thread safety: `look` is one script, other functions depend on their arguments only. A commit of a
`FirstEntry` finds its entry itself (``claim.lua``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from latchstore.contract.errors import OutcomeUnknownError
from latchstore.contract.ranges import Prefix
from latchstore.contract.values import Change
from latchstore.engine.first_entry import FirstEntry
from latchstore.engine.first_values import FirstValues, Item
from latchstore.redis.client import Server
from latchstore.redis.committing import Sent, outcome
from latchstore.redis.entries import name_of, stored_key
from latchstore.redis.indexes import ServerIndexes
from latchstore.redis.log import Changes, ServerLog
from latchstore.redis.positions import MemberSpan, member_spans, text_and_key
from latchstore.redis.scripts import FIRST


def first_change(log: ServerLog, answer: Sequence[Any]) -> Change:
    """Return the first change of a commit, from its answer, or from the log if the answer was lost."""
    _, revision, packed, *_ = answer
    if packed:
        return Changes(packed)[0]
    found: list[Change] = []
    until = int(revision)
    log.replay(until - 1, until, lambda commit: found.extend(commit.changes))
    if not found:
        raise OutcomeUnknownError(
            f"the answer to commit {until} was lost, and the log does not have it any more"
        )
    return found[0]


def look_back(server: Server, log: ServerLog, sent: Sent, edit: FirstEntry) -> None:
    """Complete an edit by its commit if that was made; otherwise it never will be made.

    Raises
    ------
    OutcomeUnknownError
        If the outcome cannot be determined.
    """
    revision = outcome(server, sent, 0, "claim")
    if revision:
        edit.made(*first_change(log, (b"OK", b"%d" % revision, b"")))


class IndexedValues(FirstValues):
    """Finds first values in the index, which all processes share.

    Parameters
    ----------
    server : Server
    indexes : ServerIndexes
    add_index : callable
        Adds the index on the item if it does not exist; another process may have removed it.
    name : str
        The metadata item.
    """

    # Whether another process writes is not known without a request, which takes as long as a lookup.
    may_wait = True
    is_found_by_commit = True

    def __init__(
        self, server: Server, indexes: ServerIndexes, add_index: Callable[[], object], name: str
    ) -> None:
        self._server = server
        self._indexes = indexes
        self.add_index: Callable[[], object] = add_index
        self._name = name
        self._set = b"i:m" + stored_key(name)
        add_index()

    def first(self, prefix: str) -> Item | None:
        return self.look((prefix,))[0]

    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        bounds = [bound for prefix in prefixes for bound in span_of_prefix(prefix)]
        known = self._indexes.known
        while True:
            if self._name not in known.indexes.names:
                self.add_index()
                known = self._indexes.known
            members = self._server.run(FIRST, known.version, self._set, *bounds)
            if members != b"INDEXES":
                return [_item_of(member) if member else None for member in members]
            known = self._indexes.load()


def span_of_prefix(prefix: str) -> MemberSpan:
    """Return the span of all texts with a prefix."""
    spans = member_spans(Prefix(prefix))
    assert spans is not None
    (span,) = spans
    # All of them begin with the prefix's encoding up to the zero that ends it.
    return span._replace(low=span.low[:-1])


def _item_of(member: bytes) -> Item:
    text, key = text_and_key(member)
    return text, name_of(key)
