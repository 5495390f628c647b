"""Stores and caches for asyncio: the same objects that threads use, with awaitable methods.

`AsyncStore` (``store.py``) has the methods of a store, transactions that may await, and watches
(``watch.py``); `AsyncCache` (``cache.py``) those of a cache, with coroutine functions as loaders. Calls that
may block the loop run in another thread (``calls.py``). This package may import ``cache``, ``contract``,
``delivery`` and ``engine``; no other package imports it.

Begin with ``store.py``.
"""

from latchstore.aio.cache import AsyncCache
from latchstore.aio.store import AsyncStore
from latchstore.aio.transaction import AsyncTransaction
from latchstore.aio.watch import AsyncWatch

__all__ = ["AsyncCache", "AsyncStore", "AsyncTransaction", "AsyncWatch"]
