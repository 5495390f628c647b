"""Blocks of other threads, and uses of a key."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from tests.cache.clocks import TIMEOUT

R = TypeVar("R")


def elsewhere(function: Callable[..., R], *arguments: Any) -> R:
    """Return what a function returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result(TIMEOUT)


kinds = pytest.mark.parametrize("optimistic", [False, True], ids=["exclusive", "optimistic"])
