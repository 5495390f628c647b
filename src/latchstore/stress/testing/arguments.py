"""Sources of arguments for operations: Hypothesis strategies, or lists of values.

Thread safety: one thread makes and uses them, before the threads of a run start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from random import Random
from typing import Any

#: The number of examples that are collected from a strategy.
EXAMPLES = 100


def checked_values(source: object, where: str) -> object:
    """Return a strategy unchanged, other values as a tuple.

    Parameters
    ----------
    source : strategy or iterable
    where : str
        The beginning of error messages.

    Raises
    ------
    TypeError
        If the source is neither a strategy nor iterable.
    ValueError
        If there are no values.
    """
    if _is_strategy(source):
        return source
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise TypeError(
            f"{where} must be a Hypothesis strategy or a list of values, got {source!r}; "
            f"for a single value use [{source!r}]"
        )
    values = tuple(source)
    if not values:
        raise ValueError(f"{where} has no values")
    return values


class ArgumentSource:
    """Draws values of one argument.

    Parameters
    ----------
    values : strategy or tuple
        The result of `checked_values`.
    seed : int
        Seed for the examples of a strategy.
    """

    def __init__(self, values: Any, seed: int) -> None:
        self._values: tuple[Any, ...] = values if isinstance(values, tuple) else _examples(values, seed)

    def draw(self, chance: Random) -> Any:
        """Return one of the values; the caller must copy it."""
        return chance.choice(self._values)


def _is_strategy(source: object) -> bool:
    # A strategy exists only if this module is imported.
    strategies = sys.modules.get("hypothesis.strategies")
    return strategies is not None and isinstance(source, strategies.SearchStrategy)


def _examples(strategy: Any, seed: int) -> tuple[Any, ...]:
    """Return examples of a strategy, the same for the same seed.

    Hypothesis draws only inside a test, so this runs one that collects its arguments.
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
