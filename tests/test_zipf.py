"""Numbers by Zipf's law: each comes as often as it should."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from latchstore.zipf import Zipfian


@pytest.mark.parametrize("theta", [0.0, 0.7, 0.99, 1.0, 1.2, 30.0])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 1_000])
def test_each_number_comes_as_often_as_the_law_says(size: int, theta: float) -> None:
    numbers = Zipfian(size, theta)
    chance = random.Random(size)
    drawn = Counter(numbers.draw(chance) for _ in range(20_000))
    assert min(drawn) == 0
    assert max(drawn) < size
    weights = [float(rank) ** -theta for rank in range(1, size + 1)]
    for number in range(size):
        # Six deviations are never met by chance; where a few are expected, there may be some more.
        expected = weights[number] / sum(weights)
        deviation = (20_000 * expected * (1 - expected)) ** 0.5
        assert abs(drawn[number] - 20_000 * expected) <= 6 * deviation + 5


def test_many_are_the_same_as_one_by_one() -> None:
    numbers = Zipfian(100, 0.9)
    chance = random.Random(7)
    assert numbers.draw_many(random.Random(7), 1_000) == [numbers.draw(chance) for _ in range(1_000)]


def test_the_greatest_chance_is_the_last_number() -> None:
    class Greatest(random.Random):
        def random(self) -> float:
            return math.nextafter(1, 0)

    for size in (1, 3, 1_000):
        assert Zipfian(size).draw(Greatest()) == size - 1


@pytest.mark.parametrize(
    ("size", "theta"), [(0, 0.5), (3, -0.1), (3, math.inf), (3, math.nan)], ids=lambda value: str(value)
)
def test_what_is_no_law(size: int, theta: float) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Zipfian(size, theta)
