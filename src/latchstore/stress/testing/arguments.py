"""Where the arguments of operations come from: Hypothesis strategies, or lists of values.

Thread safety: made and drawn from by one thread, before the threads of a run start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from random import Random
from typing import Any

#: How many examples of a strategy are collected.
EXAMPLES = 100


def checked_values(source: object, where: str) -> object:
    """Return a strategy as it is, other values as a tuple.

    Parameters
    ----------
    source : strategy or iterable
    where : str
        What errors begin with.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it has no values.
    """
    if _is_strategy(source):
        return source
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise TypeError(
            f"{where} must be a Hypothesis strategy or a list of values, got {source!r}; "
            f"for one value say [{source!r}]"
        )
    values = tuple(source)
    if not values:
        raise ValueError(f"{where} has no values")
    return values


class ArgumentSource:
    """Draws the values of one argument.

    Parameters
    ----------
    values : strategy or tuple
        As `checked_values` returns it.
    seed : int
        Of the examples of a strategy.
    """

    def __init__(self, values: Any, seed: int) -> None:
        self._values: tuple[Any, ...] = values if isinstance(values, tuple) else _examples(values, seed)

    def draw(self, chance: Random) -> Any:
        """Return one of the values; whoever uses it is to copy it."""
        return chance.choice(self._values)


def _is_strategy(source: object) -> bool:
    # Who has made a strategy has imported the module.
    strategies = sys.modules.get("hypothesis.strategies")
    return strategies is not None and isinstance(source, strategies.SearchStrategy)


def _examples(strategy: Any, seed: int) -> tuple[Any, ...]:
    """Return examples of a strategy, always the same for a seed.

    Hypothesis draws within a test only, so one is run that collects what it is given.
    """
    import hypothesis

    found: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return tuple(found)
