"""Numbers of which a few come often, and most seldom: the law of Zipf.

The method is that of Gray, Sundaresan, Englert, Baclawski and Weinberger, "Quickly generating billion-record
synthetic databases" (SIGMOD 1994, section 3.2): one draw a number, without a table.
"""

from __future__ import annotations

import random


class Zipfian:
    """Draws numbers from 0, the most frequent, up to but not including `size`.

    Parameters
    ----------
    size : int
    theta : float
        How uneven it is, above 0 and below 1. YCSB has 0.99.
    """

    def __init__(self, size: int, theta: float = 0.99) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not 0 < theta < 1:
            raise ValueError(f"theta must be above 0 and below 1, got {theta}")
        self._size = size
        self._alpha = 1 / (1 - theta)
        self._zeta = sum(1 / rank**theta for rank in range(1, size + 1))
        # The first two have the probabilities 1 / zeta and second / zeta exactly.
        self._second = 0.5**theta
        rest = 1 - (1 + self._second) / self._zeta
        # Of two numbers or fewer there is no rest to be drawn from.
        self._eta = (1 - (2 / size) ** (1 - theta)) / rest if size > 2 else 0.0

    def draw(self, chance: random.Random) -> int:
        """Return a number."""
        uniform = chance.random()
        scaled = uniform * self._zeta
        if scaled < 1 or self._size == 1:
            return 0
        if scaled < 1 + self._second or self._size == 2:
            return 1
        number = int(self._size * (self._eta * uniform - self._eta + 1) ** self._alpha)
        return min(number, self._size - 1)
