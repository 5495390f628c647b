"""Random numbers with a Zipf distribution: a few numbers are frequent, most are rare.

A draw bisects a table of cumulative probabilities, which is exact for any exponent. The table has eight bytes
per number.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect
from itertools import accumulate


class Zipfian:
    """Draws numbers from 0, the most frequent, up to but not including `size`.

    Parameters
    ----------
    size : int
    theta : float
        Skew of the distribution: the frequency of n is proportional to 1 / (n + 1) ** theta. At 0 all numbers
        are equally frequent; YCSB uses 0.99.
    """

    def __init__(self, size: int, theta: float = 0.99) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not 0 <= theta < math.inf:
            raise ValueError(f"theta must be at least 0 and finite, got {theta}")
        self._size = size
        # Not 1 / rank**theta, which overflows where this underflows to 0.
        self._sums = array("d", accumulate(float(rank) ** -theta for rank in range(1, size + 1)))
        self._total = self._sums[-1]

    def draw(self, chance: random.Random) -> int:
        """Return a random number."""
        # The upper limit of the search is the last number, as the product may be rounded up to the total.
        return bisect(self._sums, chance.random() * self._total, 0, self._size - 1)

    def draw_many(self, chance: random.Random, count: int) -> list[int]:
        """Return `count` random numbers: those of as many calls of `draw`, but faster."""
        return chance.choices(range(self._size), cum_weights=self._sums, k=count)
