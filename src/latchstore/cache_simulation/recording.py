"""A trace that can be replayed: its keys numbered, and its requests in a temporary file.

The memory that a trace needs depends on the number of its keys, not of its requests.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import IO, Any, Self

#: Number of requests per block.
BLOCK = 1 << 16

#: The next time of a key that is not requested again.
NEVER = 1 << 62

#: Maximum bytes of a temporary file in memory.
IN_MEMORY = 64 * 2**20

# Array types: for the number of a key, and for the time of a request, which is its position in the trace.
_KEY, _TIME = "I", "q"


class Recording:
    """The requests of a trace.

    Parameters
    ----------
    requested : iterable of str
        The requested keys, in order.
    warm_up : int
        Number of initial requests that get blocks of their own.
    progress : callable
        Called with the number of requests read so far.

    Attributes
    ----------
    keys : sequence of str
        Each key once.
    requests : int
    """

    def __init__(
        self, requested: Iterable[str], warm_up: int = 0, progress: Callable[[int], object] | None = None
    ) -> None:
        self.requests: int = 0
        self._warm_up = warm_up
        self._numbers = _Blocks(_KEY)
        self._next_times: _Blocks | None = None
        try:
            self.keys: Sequence[str] = self._record(iter(requested), progress)
        except BaseException:
            self.close()
            raise

    def _record(self, requested: Iterator[str], progress: Callable[[int], object] | None) -> list[str]:
        """Record the number of each requested key; return the keys."""
        numbers: dict[str, int] = {}
        while keys := list(islice(requested, self._length_here())):
            self._numbers.append(array(_KEY, [numbers.setdefault(key, len(numbers)) for key in keys]))
            self.requests += len(keys)
            if progress is not None:
                progress(self.requests)
        return list(numbers)

    def _length_here(self) -> int:
        """Return the length of the next block: a block ends where the warm-up ends."""
        left = self._warm_up - self.requests
        return min(BLOCK, left) if left > 0 else BLOCK

    @property
    def lengths(self) -> Sequence[int]:
        """The number of requests in each block."""
        return self._numbers.lengths

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._numbers.close()
        if self._next_times is not None:
            self._next_times.close()

    def blocks(self) -> Iterator[list[str]]:
        """Yield the requested keys, block by block."""
        names = self.keys
        for numbers in self._numbers.forward():
            yield [names[number] for number in numbers]

    def next_times(self) -> Iterator[array[int]]:
        """Yield the time of the next request of each request's key, block by block; NEVER if none."""
        if self._next_times is None:
            self._next_times = self._find_next_times()
        return self._next_times.backward()

    def _find_next_times(self) -> _Blocks:
        """Read the trace backwards, and write the next time of each request's key, last request first."""
        found = _Blocks(_TIME)
        seen = array(_TIME, [NEVER]) * len(self.keys)
        time = self.requests
        for numbers in self._numbers.backward():
            times = array(_TIME, [NEVER]) * len(numbers)
            for place in range(len(numbers) - 1, -1, -1):
                time -= 1
                number = numbers[place]
                times[place] = seen[number]
                seen[number] = time
            found.append(times)
        return found


class _Blocks:
    """Arrays of numbers in a temporary file, readable in both directions."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.lengths: list[int] = []
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115

    def append(self, block: array[int]) -> None:
        file: Any = self._file
        file.write(block)
        self.lengths.append(len(block))

    def forward(self) -> Iterator[array[int]]:
        yield from self._read(range(len(self.lengths)))

    def backward(self) -> Iterator[array[int]]:
        yield from self._read(range(len(self.lengths) - 1, -1, -1))

    def _read(self, places: Iterable[int]) -> Iterator[array[int]]:
        size = array(self._kind).itemsize
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length * size)
        for place in places:
            self._file.seek(starts[place])
            block: array[int] = array(self._kind)
            block.frombytes(self._file.read(starts[place + 1] - starts[place]))
            yield block

    def close(self) -> None:
        self._file.close()
