"""Read the tables of a SQLite database from the bytes of its file, without SQLite.

SQLite would execute what the file contains: views, triggers and generated columns that somebody has put in
the place of tables. It would apply the files beside it, and release the interpreter at each row, for which a
busy thread then takes five milliseconds each time. Here each page is read once, so reading always ends, and
an interrupt is raised at once. The format and its terms: https://www.sqlite.org/fileformat2.html.

The rows of many pages are read together, column by column, with every loop in C: a thread that computes does
not take the interpreter between the rows. Where a row needs a closer look, they are read one by one.

Thread safety: nothing is shared; the bytes never change.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice, repeat
from operator import add, call, le, lt, pos, sub
from typing import Any, NamedTuple

#: Kinds of table pages: interior pages point to pages, leaf pages have rows.
_INTERIOR = 0x05
_LEAF = 0x0D

#: The most pages from the root to a row: a table of depth 20 has more rows than any disk.
_DEPTH = 20

#: The most layouts of records that are kept while a table is read.
_LAYOUTS = 1_000

#: The rows that are read together, at least.
_TOGETHER = 5_000

_integer: Callable[[bytes], int] = partial(int.from_bytes, byteorder="big", signed=True)

#: The conversions that return what they are given.
_UNCHANGED: frozenset[Callable[[Any], Any]] = frozenset({pos, bytes})

#: Size, format and conversion of the values of each serial type below 12. All conversions are written in C.
_VALUES: dict[int, tuple[int, str, Callable[[Any], Any]]] = {
    0: (0, "0s", {b"": None}.__getitem__),
    1: (1, "b", pos),
    2: (2, "h", pos),
    3: (3, "3s", _integer),
    4: (4, "i", pos),
    5: (6, "6s", _integer),
    6: (8, "q", pos),
    7: (8, "d", pos),
    8: (0, "0s", {b"": 0}.__getitem__),
    9: (0, "0s", {b"": 1}.__getitem__),
}

#: A varint, and those of which there is one form only and that have at most two and eight bytes.
_ANY = rb"[\x80-\xff]{0,8}[\x00-\x7f]"
_TWO = rb"(?:[\x81-\xff])?[\x00-\x7f]"
_EIGHT = rb"(?:[\x81-\xff][\x80-\xff]{0,6})?[\x00-\x7f]"

_page_number = struct.Struct(">I").unpack_from

Row = tuple[Any, ...]


class _Layout(NamedTuple):
    """How the values of a record lie in it: their size, the struct that reads them, conversions by column."""

    size: int
    values: struct.Struct
    conversions: tuple[Callable[[Any], Any], ...]


class _Layouts(dict[bytes, _Layout]):
    """The layouts of a table's records by their headers: most rows have the header of another one."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns: int = columns

    def __missing__(self, header: bytes) -> _Layout:
        if len(self) >= _LAYOUTS:
            self.clear()
        layout = self[header] = _layout(header, self.columns)
        return layout


class _Varints(dict[bytes, int]):
    """The values of varints by their bytes, of which there are at most two."""

    def __missing__(self, varint: bytes) -> int:
        value, _ = _varint(varint, 0)
        self[varint] = value
        return value


class _Leaf(NamedTuple):
    """A leaf page: where it begins, and where in it each of its rows does."""

    start: int
    offsets: tuple[int, ...]


class DamageError(Exception):
    """The bytes are not a database that SQLite could have written."""


class Header:
    """The first hundred bytes of a database.

    Attributes
    ----------
    application, version : int
        The values of ``PRAGMA application_id`` and ``PRAGMA user_version``.
    page_size, usable_size : int
        The bytes of a page, and the usable ones of them.
    has_log : bool
        Whether changes are first written to a write-ahead log beside the file.
    """

    def __init__(self, first: bytes, size: int) -> None:
        if len(first) < 100 or not first.startswith(b"SQLite format 3\0"):
            raise DamageError("it is not a SQLite database")
        page_size, _, read_version, reserved = struct.unpack_from(">HBBB", first, 16)
        self.page_size: int = 65536 if page_size == 1 else page_size
        self.usable_size: int = self.page_size - reserved
        self.has_log: bool = read_version == 2
        changes, pages = struct.unpack_from(">II", first, 24)
        self.version: int
        self.application: int
        encoding, self.version, _, self.application = struct.unpack_from(">IiII", first, 56)
        (valid_for,) = _page_number(first, 92)
        if self.page_size < 512 or self.page_size & (self.page_size - 1) or self.usable_size < 480:
            raise DamageError(f"it has pages of {page_size} bytes")
        if size % self.page_size or (changes == valid_for and pages * self.page_size != size):
            raise DamageError(f"it has {size} bytes and should have {pages * self.page_size}")
        if encoding != 1:
            raise DamageError("its text is not UTF-8")


class Database:
    """The bytes of a database; raises DamageError where they are damaged.

    Parameters
    ----------
    content : bytes
    """

    def __init__(self, content: bytes) -> None:
        self.header: Header = Header(content[:100], len(content))
        self._content = content
        self._page_size = self.header.page_size
        self._usable = self.header.usable_size
        self._pages = len(content) // self._page_size
        self._read: set[int] = set()

    def schema(self) -> list[Row]:
        """Return type, name, table, root page and SQL of each object in the database."""
        return list(self.rows(1, 5))

    def rows(self, root: int, columns: int) -> Iterator[Row]:
        """Iterate over the rows of a table in order.

        Parameters
        ----------
        root : int
            The root page of the table.
        columns : int
            The number of columns that each row must have.
        """
        return chain.from_iterable(self._groups(root, columns))

    def _groups(self, root: int, columns: int) -> Iterator[Iterable[Row]]:
        """Iterate over the rows of a table, those of many pages together if they need no closer look."""
        layouts = _Layouts(columns)
        head = re.compile(rb"(%b)(%b)(.(?:%b){%d})" % (_TWO, _EIGHT, _ANY, columns), re.DOTALL).match
        before: list[int] = []
        try:
            leaves = self._leaves(root, _DEPTH)
            while True:
                pages = list(self._some(leaves))
                if not pages:
                    return
                group = self._plain_rows(pages, head, layouts, before)
                if group is not None:
                    yield group
                else:
                    for page in pages:
                        yield self._page_rows(page, layouts, before)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise DamageError(str(error)) from error

    def _some(self, leaves: Iterable[int]) -> Iterator[_Leaf]:
        """Iterate over leaf pages until there are `_TOGETHER` rows in them."""
        found = 0
        for start in leaves:
            at = self._header_of(start)
            (count,) = struct.unpack_from(">H", self._content, at + 3)
            yield _Leaf(start, struct.unpack_from(f">{count}H", self._content, at + 8))
            found += count
            if found >= _TOGETHER:
                return

    def _plain_rows(
        self,
        pages: list[_Leaf],
        head: Callable[[bytes, int], re.Match[bytes] | None],
        layouts: _Layouts,
        before: list[int],
    ) -> Iterable[Row] | None:
        """Return what `_page_rows` yields for some pages; None if a row of them needs a closer look."""
        content, usable = self._content, self._usable
        starts, offsets = zip(*pages, strict=True)
        counts = tuple(map(len, offsets))
        places = chain.from_iterable(map(map, repeat(add), map(repeat, starts), offsets))
        found = list(map(head, repeat(content), places))
        heads = list(filter(None, found))
        if not heads or len(heads) < len(found):
            return None
        sizes, rowids, headers = zip(*map(re.Match.groups, heads), strict=True)
        sizes = tuple(map(_Varints().__getitem__, sizes))
        ends = tuple(map(add, map(re.Match.start, heads, repeat(3)), sizes))
        bodies = tuple(map(re.Match.end, heads))
        page_ends = chain.from_iterable(map(repeat, map(add, starts, repeat(usable)), counts))
        each_size = iter(sizes)
        first, _ = _varint(rowids[0], 0)
        # Their bytes have the order of the numbers once they are of the same length.
        rowids = tuple(map(bytes.rjust, rowids, repeat(9), repeat(b"\0")))
        try:
            body_sizes, readers, conversions = zip(*map(layouts.__getitem__, headers), strict=True)
            if (
                max(sizes) > usable - 35
                or not all(map(le, ends, page_ends))
                or max(map(sum, map(islice, repeat(each_size), counts))) > usable
                or tuple(map(sub, ends, bodies)) != body_sizes
                or (before and first <= before[0])
                or not all(map(lt, rowids, islice(rowids, 1, None)))
            ):
                return None
            rows = map(struct.Struct.unpack_from, readers, repeat(content), bodies)
            columns = list(map(_converted, zip(*rows, strict=True), zip(*conversions, strict=True)))
        except (DamageError, struct.error, UnicodeDecodeError):
            return None
        before[:] = [_varint(rowids[-1].lstrip(b"\0") or b"\0", 0)[0]]
        return zip(*columns, strict=True)

    def _page_rows(self, page: _Leaf, layouts: _Layouts, before: list[int]) -> Iterator[Row]:
        """Iterate over the rows of a page; `before` has the number of the last row, or nothing."""
        try:
            for rowid, record, at, end in self._records(page):
                if before and rowid <= before[0]:
                    raise DamageError("its rows are out of order")
                before[:] = [rowid]
                body = at + record[at]
                layout = layouts[record[at:body]]
                if end - body != layout.size:
                    raise DamageError("a row is not as long as its values")
                yield tuple(map(call, layout.conversions, layout.values.unpack_from(record, body)))
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise DamageError(str(error)) from error

    def _leaves(self, page: int, depth: int) -> Iterator[int]:
        """Yield the positions of the leaf pages of a table."""
        start = self._begin(page)
        at = self._header_of(start)
        kind = self._content[at]
        if kind == _LEAF:
            yield start
            return
        if kind != _INTERIOR or not depth:
            raise DamageError(f"page {page} is not a page of a table")
        (count,) = struct.unpack_from(">H", self._content, at + 3)
        for offset in struct.unpack_from(f">{count}H", self._content, at + 12):
            yield from self._leaves(_page_number(self._content, start + offset)[0], depth - 1)
        yield from self._leaves(_page_number(self._content, at + 8)[0], depth - 1)

    def _begin(self, page: int) -> int:
        """Return the position of a page; each page may be read once."""
        if not 0 < page <= self._pages or page in self._read:
            raise DamageError(f"page {page} does not exist, or is used twice")
        self._read.add(page)
        return (page - 1) * self._page_size

    @staticmethod
    def _header_of(start: int) -> int:
        """Return the position of a page's header; on the first page it follows that of the database."""
        return start or 100

    def _records(self, page: _Leaf) -> Iterator[tuple[int, bytes, int, int]]:
        """Iterate over the rows of a page: the number of each, bytes, and where in them its record is."""
        content, usable = self._content, self._usable
        page_end, left = page.start + usable, usable
        for offset in page.offsets:
            size, at = _varint(content, page.start + offset)
            rowid, at = _varint(content, at)
            local = size
            if size > usable - 35:
                least = (usable - 12) * 32 // 255 - 23
                local = least + (size - least) % (usable - 4)
                if local > usable - 35:
                    local = least
            left -= local
            end = at + local
            if end > page_end or left < 0:  # rows that overlap would have more bytes than the page
                raise DamageError("the rows are longer than their page")
            if rowid >= 1 << 63:
                rowid -= 1 << 64
            if local == size:
                yield rowid, content, at, end
            else:
                record = self._with_overflow(content[at:end], size, _page_number(content, end)[0])
                yield rowid, record, 0, size

    def _with_overflow(self, payload: bytes, size: int, page: int) -> bytes:
        """Return a record that continues on overflow pages."""
        if size > len(self._content):
            raise DamageError("a row is longer than the file")
        parts = [payload]
        left = size - len(payload)
        while left:
            start = self._begin(page)
            (page,) = _page_number(self._content, start)
            taken = min(left, self._usable - 4)
            parts.append(self._content[start + 4 : start + 4 + taken])
            left -= taken
        return b"".join(parts)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return an integer of one to nine bytes, and the position after it."""
    byte = content[at]
    if byte < 0x80:  # hot path: most of them
        return byte, at + 1
    value = byte & 0x7F
    byte = content[at + 1]
    if byte < 0x80:  # hot path: nearly all others
        return value << 7 | byte, at + 2
    for place in range(at + 1, at + 8):
        byte = content[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | content[at + 8], at + 9


def _converted(column: tuple[Any, ...], conversions: tuple[Callable[[Any], Any], ...]) -> tuple[Any, ...]:
    """Return the values of a column, each converted by its function."""
    kinds = frozenset(conversions)
    if kinds <= _UNCHANGED:
        return column
    if len(kinds) == 1:
        return tuple(map(conversions[0], column))
    return tuple(map(call, conversions, column))


def _layout(header: bytes, columns: int) -> _Layout:
    """Return how the values of a record lie in it, which its header tells."""
    end = header[0]  # one byte, unless there are more columns than in any of our tables
    at = 1
    form = ">"
    conversions: list[Callable[[Any], Any]] = []
    total = 0
    while at < end and len(conversions) < columns:
        kind, at = _varint(header, at)
        if kind >= 12:
            size = (kind - 12) >> 1
            form += f"{size}s"
            conversions.append(bytes.decode if kind & 1 else bytes)
        elif kind in _VALUES:
            size, part, convert = _VALUES[kind]
            form += part
            conversions.append(convert)
        else:
            raise DamageError(f"a value is of the unknown type {kind}")
        total += size
    if len(conversions) != columns or at < end:
        raise DamageError(f"a row has not {columns} columns")
    if at != end:
        raise DamageError("a row is not as long as its values")
    return _Layout(total, struct.Struct(form), tuple(conversions))
