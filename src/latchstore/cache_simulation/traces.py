"""Sources of requests: a file, standard input, or a generator."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import random
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from latchstore.zipf import Zipfian

#: Number of requests drawn at once.
_DRAWN = 10_000

#: A scan reads one part in this many of the keys, after twice as many other requests.
_SCANNED = 20

#: The first bytes of a gzip file.
_GZIP = b"\x1f\x8b"

#: The names of generated traces, with the parameter after the colon.
LAWS = {"zipf": "ALPHA", "scan": "ALPHA", "loop": "KEYS"}


class SimulationError(Exception):
    """An argument is invalid or a trace cannot be read; the message has one line."""


class Trace:
    """A trace named on the command line.

    Parameters
    ----------
    name : str
        ``zipf:ALPHA``, ``scan:ALPHA`` or ``loop:KEYS``, each without the colon for the default; ``-`` for
        standard input; otherwise the path of a file.
    keys : int
        Number of keys of a generated trace.
    requests : int or None
        Maximum number of requests; None for all of a file, or one million of a generated trace.
    alpha : float
        The exponent, if the name has none.
    seed : int
        Seed of a generated trace.

    Raises
    ------
    SimulationError
        If the trace is invalid.
    """

    def __init__(self, name: str, keys: int, requests: int | None, alpha: float, seed: int) -> None:
        self.name = name
        self._law, colon, argument = name.partition(":")
        self.is_generated: bool = self._law in LAWS
        self._limit = 1_000_000 if requests is None and self.is_generated else requests
        self._seed = seed
        self._keys, self._alpha = keys, alpha
        if self.is_generated and colon:
            if self._law == "loop":
                self._keys = self._number_of_keys(argument)
            else:
                self._alpha = self._exponent(argument)

    def _number_of_keys(self, text: str) -> int:
        try:
            keys = int(text)
        except ValueError:
            keys = 0
        if keys < 1:
            raise SimulationError(f"trace {self.name!r}: KEYS must be a whole number of at least 1")
        return keys

    def _exponent(self, text: str) -> float:
        try:
            alpha = float(text)
        except ValueError:
            alpha = -1.0
        if not 0 <= alpha < math.inf:
            raise SimulationError(f"trace {self.name!r}: ALPHA must be a number of at least 0")
        return alpha

    def read(self) -> Iterator[str]:
        """Yield the requested keys, in order.

        Raises
        ------
        SimulationError
            If the trace cannot be read.
        """
        requested = self._generated() if self.is_generated else self._in_file()
        return itertools.islice(requested, self._limit)

    def _generated(self) -> Iterator[str]:
        # Each trace has its own generator, so that traces do not influence each other.
        chance = random.Random(self._seed)  # noqa: S311 - nobody is to be kept from guessing
        match self._law:
            case "loop":
                return itertools.chain.from_iterable(map(str, range(self._keys)) for _ in itertools.count())
            case "scan":
                return _with_scans(Zipfian(self._keys, self._alpha), self._keys, chance)
        return _zipfian(Zipfian(self._keys, self._alpha), chance)

    def _in_file(self) -> Iterator[str]:
        try:
            with _opened(self.name) as file:
                for line in file:
                    key = line.rstrip("\n")
                    if key:
                        yield key
        except (OSError, EOFError, zlib.error) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise SimulationError(f"trace {self.name!r}: cannot be read: {problem}") from error


def _zipfian(law: Zipfian, chance: random.Random) -> Iterator[str]:
    while True:
        yield from map(str, law.draw_many(chance, _DRAWN))


def _with_scans(law: Zipfian, keys: int, chance: random.Random) -> Iterator[str]:
    """Yield requests of which one in three belongs to a scan, which continues where the last one stopped."""
    scanned = max(1, keys // _SCANNED)
    order = list(range(keys))
    # The order of the keys must be independent of their frequency.
    chance.shuffle(order)
    scan = itertools.cycle(order)
    requests = _zipfian(law, chance)
    while True:
        yield from itertools.islice(requests, 2 * scanned)
        yield from map(str, itertools.islice(scan, scanned))


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Open a file, gzipped or not; bytes that are not UTF-8 are preserved."""
    source: Any = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115 - closed below
    buffered = io.BufferedReader(source)
    try:
        is_packed = buffered.peek(len(_GZIP)).startswith(_GZIP)
        unpacked: Any = gzip.GzipFile(fileobj=buffered) if is_packed else buffered
        yield io.TextIOWrapper(unpacked, "utf-8-sig", "surrogateescape")
    finally:
        if name == "-":
            buffered.detach()
        else:
            buffered.close()
