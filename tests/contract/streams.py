"""Streams that note what is asked of them, or fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class RecordingStream:
    """A stream that gives its data as asked for, and notes the sizes that were asked for.

    Parameters
    ----------
    data : bytes
    at_most : int, optional
        The most bytes given at once, as a socket or a pipe may do.
    """

    def __init__(self, data: bytes, at_most: int | None = None) -> None:
        self._data = data
        self._at_most = at_most
        self.sizes: list[int] = []

    def read(self, size: int = -1, /) -> bytes:
        self.sizes.append(size)
        wanted = len(self._data) if size < 0 else size
        if self._at_most is not None:
            wanted = min(wanted, self._at_most)
        block, self._data = self._data[:wanted], self._data[wanted:]
        return block


class YieldingStream:
    """A stream whose reads give these objects one after another, bytes or not.

    An exception among them is raised.
    """

    def __init__(self, blocks: Iterable[object]) -> None:
        self._blocks = iter(blocks)

    def read(self, size: int = -1, /) -> bytes:
        block = next(self._blocks, b"")
        if isinstance(block, BaseException):
            raise block
        return block  # type: ignore[return-value]


class WatchingStream:
    """A stream that calls a function at each read, before it gives its data."""

    def __init__(self, data: bytes, watch: Callable[[], object]) -> None:
        self._data = data
        self._watch = watch

    def read(self, size: int = -1, /) -> bytes:
        self._watch()
        data, self._data = self._data, b""
        return data
