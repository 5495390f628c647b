"""Reads an index page by page (``query.lua``).

Thread safety: functions of their arguments; several threads may use a view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from latchstore.engine.index_list import Indexes
from latchstore.redis.positions import MemberSpan
from latchstore.redis.scripts import QUERY, Script

#: A key, and the fields of its entry without data.
Found = tuple[bytes, Sequence[bytes]]

#: Number of members of an index that one script reads. More would block the server.
_MOST = 1_000


class Known(NamedTuple):
    """The list of indexes, as known to a process.

    Attributes
    ----------
    version : bytes
    indexes : Indexes
    """

    version: bytes
    indexes: Indexes


class IndexesChangedError(Exception):
    """The server has another list of indexes: load it, and repeat the query."""


class FewerElsewhereError(Exception):
    """Another source has so few members that reading all of them is faster."""


class Source(NamedTuple):
    """An index, or the part of it that may match a term.

    Attributes
    ----------
    set : bytes
        Its name on the server, after the namespace.
    kind : bytes
        The kind of its members: ``key``, ``fact`` or ``item``.
    field : bytes
        Field of an entry that has the position; empty if entries are not compared with it.
    spans : sequence of MemberSpan
    """

    set: bytes
    kind: bytes
    field: bytes
    spans: Sequence[MemberSpan]


#: All members of an index, or all keys: positions and keys never begin with the byte 0xFF.
EVERYTHING = MemberSpan(b"", b"\xff\xff")

EVERY_KEY = Source(b"keys", b"key", b"", (EVERYTHING,))


class Reader(Protocol):
    """Runs reading scripts: a view."""

    def run(self, script: Script, *arguments: Any) -> Any:
        """Return the result of a script."""


def pages(
    reader: Reader,
    known: Known,
    sources: Sequence[Source],
    *,
    in_order: bool = False,
    descending: bool = False,
    first: int = _MOST,
    few: float = 0,
    only_keys: bool = False,
) -> Iterator[list[Found]]:
    """Yield the pages of the intersection of sources.

    Parameters
    ----------
    reader : Reader
    known : Known
    sources : sequence of Source
        A member of the source being read is skipped unless it is in the spans of the other sources that have
        a field.
    in_order : bool
        Whether to read the first source; otherwise the one with the fewest members.
    descending : bool
        Whether to read it in reverse.
    first : int
        Maximum size of the first page; later ones are larger.
    few : float
        Maximum number of members of another source, which must also be fewer than those of the first, for
        FewerElsewhereError.
    only_keys : bool
        Whether to leave the fields empty.

    Raises
    ------
    IndexesChangedError, FewerElsewhereError
    """
    left = list(sources)
    number, size = int(in_order), min(first, _MOST)
    while True:
        arguments = [part for source in left for part in _arguments_of(source)]
        answer = reader.run(
            QUERY,
            known.version,
            number,
            int(descending),
            size,
            _MOST,
            int(not only_keys),
            int(min(few, 2**53)),
            len(left),
            *arguments,
        )
        if answer == b"INDEXES":
            raise IndexesChangedError
        if answer == b"FEWER":
            raise FewerElsewhereError
        number, keys, entries, stopped, last = answer
        yield list(zip(keys, entries if not only_keys else [()] * len(keys), strict=True))
        if not stopped:
            return
        source = left[number - 1]
        left[number - 1] = source._replace(spans=_rest(source.spans, stopped - 1, last, descending))
        size, few = min(2 * size, _MOST), 0


def _arguments_of(source: Source) -> list[Any]:
    bounds = [bound for span in source.spans for bound in span]
    return [source.set, source.kind, source.field, len(source.spans), *bounds]


def _rest(spans: Sequence[MemberSpan], stopped: int, last: bytes, descending: bool) -> Sequence[MemberSpan]:
    """Return the rest of spans after a member of one of them, or that whole span if there is no member."""
    span = spans[stopped]
    if descending:
        return [*spans[:stopped], span._replace(high=last) if last else span]
    # The next possible member has an additional zero.
    return [span._replace(low=last + b"\0") if last else span, *spans[stopped + 1 :]]
