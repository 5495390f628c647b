"""A pytest plugin that has Flask-Caching's own tests run on our backend, in the place of SimpleCache.

Run by test_suites.py, in a process of its own, with the tests of Flask-Caching's source distribution.
"""

from __future__ import annotations

from typing import Any

import cachelib.simple
import flask_caching.backends
import flask_caching.backends.simplecache

from latchstore import Cache
from latchstore.backends.flask_caching import LatchstoreCache


class SimpleCache(LatchstoreCache):
    """The backend, with the clock of the tests, and the name that they count entries by."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Looked up at each call: the tests replace it.
        super().__init__(*args, clock=lambda: vars(cachelib.simple)["time"](), **options)

    @property
    def _cache(self) -> Cache:
        return self.cache


for module in (flask_caching.backends, flask_caching.backends.simplecache):
    setattr(module, SimpleCache.__name__, SimpleCache)
