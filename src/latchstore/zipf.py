"""Numbers of which a few come often, and most seldom: the law of Zipf.

Drawn from a table of the sums of all chances by bisection, which is exact for any exponent. It takes eight
bytes a number.
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
        How uneven it is: number n comes in proportion to 1 / (n + 1) ** theta. All come equally often at 0;
        YCSB has 0.99.
    """

    def __init__(self, size: int, theta: float = 0.99) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not 0 <= theta < math.inf:
            raise ValueError(f"theta must be at least 0 and finite, got {theta}")
        self._size = size
        # Not 1 / rank**theta, which overflows where this goes to 0.
        self._sums = array("d", accumulate(float(rank) ** -theta for rank in range(1, size + 1)))
        self._total = self._sums[-1]

    def draw(self, chance: random.Random) -> int:
        """Return a number."""
        # The last one is the limit: the product may be rounded up to the total.
        return bisect(self._sums, chance.random() * self._total, 0, self._size - 1)

    def draw_many(self, chance: random.Random, count: int) -> list[int]:
        """Return as many numbers, the same as `draw` would return one by one, but faster."""
        return chance.choices(range(self._size), cum_weights=self._sums, k=count)
