"""What an index is asked for, page by page (``query.lua``).

Thread safety: functions of their arguments; a view may be used by several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from latchstore.engine.index_list import Indexes
from latchstore.redis.positions import MemberSpan
from latchstore.redis.scripts import QUERY, Script

#: A key, and the fields of its entry without data.
Found = tuple[bytes, Sequence[bytes]]

#: How many members of an index one script looks at. More would hold the server up.
_MOST = 1_000


class Known(NamedTuple):
    """The list of indexes, as a process knows it.

    Attributes
    ----------
    version : bytes
    indexes : Indexes
    """

    version: bytes
    indexes: Indexes


class IndexesChangedError(Exception):
    """The server has another list of indexes: it is to be loaded, and the query made again."""


class FewerElsewhereError(Exception):
    """Another source has so few members that all of them are looked at instead."""


class Source(NamedTuple):
    """An index, or what there is of it that may match a term.

    Attributes
    ----------
    set : bytes
        Its name on the server, after the namespace.
    kind : bytes
        What its members are: ``key``, ``fact`` or ``item``.
    field : bytes
        The field of an entry that has the position; empty if entries are not to be compared with it.
    spans : sequence of MemberSpan
    """

    set: bytes
    kind: bytes
    field: bytes
    spans: Sequence[MemberSpan]


#: All members of an index, or all keys: no position, and no key, begins with the byte 0xFF.
EVERYTHING = MemberSpan(b"", b"\xff\xff")

EVERY_KEY = Source(b"keys", b"key", b"", (EVERYTHING,))


class Reader(Protocol):
    """What runs a script that reads: a view."""

    def run(self, script: Script, *arguments: Any) -> Any:
        """Return what the script has read."""


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
    """Go through what is in all of some sources.

    Parameters
    ----------
    reader : Reader
    known : Known
    sources : sequence of Source
        What is in the one that is gone through is left out unless it is in those of the others that have a
        field as well.
    in_order : bool
        Whether it is the first source that is gone through; else that which has fewest.
    descending : bool
        Whether it is gone through from its end.
    first : int
        How many the first page has, at the most; later ones have more.
    few : float
        How many another source may have at the most, and fewer than the first one, for FewerElsewhereError.
    only_keys : bool
        Whether the fields are left empty.

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
    """Return what is left of spans after a member of one of them, or of that one if there is no member."""
    span = spans[stopped]
    if descending:
        return [*spans[:stopped], span._replace(high=last) if last else span]
    # The next member there can be has a zero more.
    return [span._replace(low=last + b"\0") if last else span, *spans[stopped + 1 :]]
