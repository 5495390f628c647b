"""The first values of ranges of a metadata item, for work queues: found by the index on the item.

Thread safety: each call is one statement. In the check of a commit, whose thread is the only writer, it finds
the state that the commit finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from latchstore.engine.first_values import FirstValues, Item
from latchstore.engine.index_list import indexes_of
from latchstore.sqlite.positions import stored_position
from latchstore.sqlite.rows import Row, name_of, stored_key
from latchstore.sqlite.statements import FIRST_ITEM, INDEXED

#: One of several values found by one statement.
_NUMBERED = f"SELECT {{}}, value, key FROM ({FIRST_ITEM})"  # noqa: S608

#: The number of the row with the names of the indexes.
_NAMES = -1


class IndexedValues(FirstValues):
    """Finds first values in the table of indexed items, which all processes share.

    Parameters
    ----------
    rows : callable
        Returns the rows of a statement.
    add_index : callable
        Adds the index on the item if it does not exist; another process may have removed it.
    name : str
        The metadata item.
    prefixes : sequence of str
        Prefixes that will be requested; none is empty.
    """

    # Whether another process writes is not known without a query, which takes as long as a lookup.
    may_wait = True

    def __init__(
        self,
        rows: Callable[[str, Sequence[object]], list[Row]],
        add_index: Callable[[], object],
        name: str,
        prefixes: Sequence[str],
    ) -> None:
        self._rows = rows
        self._add_index = add_index
        self._name = name
        stored = stored_key(name)
        self._ranges = {prefix: (stored, *_range_of(prefix)) for prefix in prefixes}
        add_index()

    def first(self, prefix: str) -> Item | None:
        rows = self._rows(FIRST_ITEM, self._ranges[prefix])
        return _item_of(rows[0]) if rows else None

    def look(self, prefixes: Sequence[str]) -> list[Item | None]:
        sql = _statement_for(len(prefixes))
        ranges = [part for prefix in prefixes for part in self._ranges[prefix]]
        while True:
            found = {number: row for number, *row in self._rows(sql, ranges)}
            if self._name in indexes_of(found[_NAMES][0]).names:
                break
            self._add_index()
        return [_item_of(found[number]) if number in found else None for number in range(len(prefixes))]


@lru_cache
def _statement_for(count: int) -> str:
    """Return the statement for this many first values and the names of the indexes, at one instant."""
    names = f"SELECT {_NAMES}, names, NULL FROM ({INDEXED})"  # noqa: S608
    return " UNION ALL ".join([names, *map(_NUMBERED.format, range(count))])


def _range_of(prefix: str) -> tuple[int, bytes, bytes]:
    """Return the rank of texts, the first text with a prefix, and the first value after all of them."""
    rank, first = stored_position(prefix)
    return rank, first, first[:-1] + bytes([first[-1] + 1])  # the last byte of UTF-8 is below 255


def _item_of(row: Row) -> Item:
    value, key = row
    return value.decode("utf-8", "surrogatepass"), name_of(key)
