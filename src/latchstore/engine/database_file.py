"""Read the tables of a SQLite database from the bytes of its file, without SQLite.

SQLite would execute what the file contains: views, triggers and generated columns that somebody has put in
the place of tables. It would apply the files beside it, and release the interpreter at each row, for which a
busy thread then takes five milliseconds each time. Here each page is read once, so reading always ends, and
an interrupt is raised at once. The format and its terms: https://www.sqlite.org/fileformat2.html.

Thread safety: nothing is shared; the bytes never change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

#: Kinds of table pages: interior pages point to pages, leaf pages have rows.
_INTERIOR = 0x05
_LEAF = 0x0D

#: The most pages from the root to a row: a table of depth 20 has more rows than any disk.
_DEPTH = 20

#: The most layouts of records that are kept while a table is read.
_LAYOUTS = 1_000


def _integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


#: Size, format and conversion of the values of each serial type below 12.
_VALUES: dict[int, tuple[int, str, Callable[[bytes], Any] | None]] = {
    0: (0, "0s", lambda _: None),
    1: (1, "b", None),
    2: (2, "h", None),
    3: (3, "3s", _integer),
    4: (4, "i", None),
    5: (6, "6s", _integer),
    6: (8, "q", None),
    7: (8, "d", None),
    8: (0, "0s", lambda _: 0),
    9: (0, "0s", lambda _: 1),
}

_page_number = struct.Struct(">I").unpack_from

Row = tuple[Any, ...]

#: The size of a row's values, the function that reads them, and conversions by column.
_Layout = tuple[int, Callable[[bytes, int], Row], list[tuple[int, Callable[[bytes], Any]]]]


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
        last = None
        layouts: dict[bytes, _Layout] = {}
        try:
            for start in self._leaves(root, _DEPTH):
                for rowid, record, at, end in self._records(start):
                    if last is not None and rowid <= last:
                        raise DamageError("its rows are out of order")
                    last = rowid
                    body = at + record[at]
                    header = record[at:body]
                    layout = layouts.get(header)  # hot path: most rows have the header of another one
                    if layout is None:
                        if len(layouts) >= _LAYOUTS:
                            layouts.clear()
                        layout = layouts[header] = _layout(record, at, columns)
                    size, unpack, conversions = layout
                    if end - body != size:
                        raise DamageError("a row is not as long as its values")
                    row = unpack(record, body)
                    if conversions:
                        values = list(row)
                        for column, convert in conversions:
                            values[column] = convert(values[column])
                        row = tuple(values)
                    yield row
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

    def _records(self, start: int) -> Iterator[tuple[int, bytes, int, int]]:
        """Iterate over the rows of a page: the number of each, bytes, and where in them its record is."""
        content, usable = self._content, self._usable
        at = self._header_of(start)
        (count,) = struct.unpack_from(">H", content, at + 3)
        page_end, left = start + usable, usable
        for offset in struct.unpack_from(f">{count}H", content, at + 8):
            size, at = _varint(content, start + offset)
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


def _layout(record: bytes, at: int, columns: int) -> _Layout:
    """Return how the values of a record lie in it, which its header tells."""
    end = at + record[at]  # one byte, unless there are more columns than in any of our tables
    at += 1
    form = ">"
    conversions: list[tuple[int, Callable[[bytes], Any]]] = []
    column = total = 0
    while at < end and column < columns:
        kind, at = _varint(record, at)
        if kind >= 12:
            size = (kind - 12) >> 1
            form += f"{size}s"
            if kind & 1:
                conversions.append((column, bytes.decode))
        elif kind in _VALUES:
            size, part, convert = _VALUES[kind]
            form += part
            if convert is not None:
                conversions.append((column, convert))
        else:
            raise DamageError(f"a value is of the unknown type {kind}")
        column += 1
        total += size
    if column != columns or at < end:
        raise DamageError(f"a row has not {columns} columns")
    if at != end or total > len(record):
        raise DamageError("a row is not as long as its values")
    return total, struct.Struct(form).unpack_from, conversions
