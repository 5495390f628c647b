"""A backend of Flask-Caching: ``CACHE_TYPE = "latchstore.backends.flask_caching.LatchstoreCache"``.

Thread safety: that of the cache.
"""

from __future__ import annotations

from typing import Any

from latchstore.backends import cachelib
from latchstore.contract.extras import missing_extra

try:
    from flask import Flask
    from flask_caching.backends.base import BaseCache
except ImportError as error:
    raise missing_extra("latchstore.backends.flask_caching", "Flask-Caching", "flask", error) from error


class LatchstoreCache(cachelib.LatchstoreCache, BaseCache):
    """The cache of a Flask app, configured by CACHE_THRESHOLD, CACHE_DEFAULT_TIMEOUT and CACHE_OPTIONS.

    CACHE_OPTIONS may have ``max_bytes``, ``idle`` and ``policy``, and ``path``: a file, or the URL of a Redis
    or Valkey server, so that all workers share one cache; or ``cache``: a `latchstore.Cache`, so that several
    apps of a process share one.

    Thread safety
    -------------
    Any thread may use it.
    """

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> LatchstoreCache:
        """Return the cache of an app; called by Flask-Caching."""
        return cls(*args, **{"threshold": config["CACHE_THRESHOLD"], **kwargs})
