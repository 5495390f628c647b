"""Where requests come from: a file, standard input, or a law."""

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

#: How many requests are drawn at once.
_DRAWN = 10_000

#: A scan reads one part of the keys in so many, after twice as many requests of others.
_SCANNED = 20

#: What a file packed by gzip begins with.
_GZIP = b"\x1f\x8b"

#: What traces are called that are generated, with what stands after the colon.
LAWS = {"zipf": "ALPHA", "scan": "ALPHA", "loop": "KEYS"}


class SimulationError(Exception):
    """Raised if an argument is wrong or a trace cannot be read; the message is one line."""


class Trace:
    """A trace that is named on the command line.

    Parameters
    ----------
    name : str
        ``zipf:ALPHA``, ``scan:ALPHA`` or ``loop:KEYS``, each without the colon for the default; ``-`` for
        standard input; else a file's path.
    keys : int
        How many keys there are, if it is generated.
    requests : int or None
        How many at most; None for all that a file has, and a million of a generated one.
    alpha : float
        The exponent, if the name has none.
    seed : int
        What is generated is the same for the same seed.

    Raises
    ------
    SimulationError
        If there can be no such trace.
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
        """Return the keys that are requested, in order.

        Raises
        ------
        SimulationError
            If it cannot be read.
        """
        requested = self._generated() if self.is_generated else self._in_file()
        return itertools.islice(requested, self._limit)

    def _generated(self) -> Iterator[str]:
        # A generator of its own for each trace: what others draw changes nothing.
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
    """Yield requests of which one in three is of a scan, which goes on where the last one stopped."""
    scanned = max(1, keys // _SCANNED)
    order = list(range(keys))
    # The keys are in no order of how often they are requested.
    chance.shuffle(order)
    scan = itertools.cycle(order)
    requests = _zipfian(law, chance)
    while True:
        yield from itertools.islice(requests, 2 * scanned)
        yield from map(str, itertools.islice(scan, scanned))


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Open a file, packed or not; what is no UTF-8 in it is kept as it is."""
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
