"""Test hook of a cache: returns its parts and checks them, as `latchstore.engine.inspection` for a store.

Thread safety: each part's own module has its rules.
"""

from __future__ import annotations

from typing import Any

from latchstore.cache.counting import CountRegister
from latchstore.cache.failures import Failures
from latchstore.cache.loading import LoadTable
from latchstore.cache.near import Copies
from latchstore.cache.shared import Cache
from latchstore.engine import inspection
from latchstore.engine.bounded import BoundedStore
from latchstore.engine.memory import DictMemoryStore


def bounded_of(cache: Cache[Any]) -> BoundedStore:
    """Return the bound of a cache in its store."""
    return cache._bounded


def loads_of(cache: Cache[Any]) -> LoadTable:
    """Return the running loads."""
    return cache._loads


def failures_of(cache: Cache[Any]) -> Failures:
    """Return the kept failures."""
    return cache._failures


def register_of(cache: Cache[Any]) -> CountRegister:
    """Return the counts of all threads."""
    return cache._register


def copies_of(cache: Cache[Any]) -> Copies:
    """Return the copies of a near cache."""
    assert cache._near is not None, "the cache was made without near"
    return cache._near


def check(cache: Cache[Any]) -> None:
    """Raise AssertionError if a cache's books do not match its store; call it while nobody writes."""
    cache._bounded.check()
    if cache._near is not None:
        cache._near.check()
    if isinstance(cache.store, DictMemoryStore):
        inspection.check(cache.store)


def check_idle(cache: Cache[Any]) -> None:
    """Raise AssertionError as `check` does, or if a load is left; call it while nobody uses the cache."""
    check(cache)
    cache._loads.check_idle()
