"""Stores and caches for asyncio: the same ones that threads use, awaited.

`AsyncStore` (``store.py``) has the methods of a store, transactions that await, and watches (``watch.py``);
`AsyncCache` (``cache.py``) those of a cache, with loaders that are coroutine functions. What may wait for
something else than the loop is called in another thread (``calls.py``). It may import ``cache``,
``contract``, ``delivery`` and ``engine``; nothing of the package loads it.

Begin with ``store.py``.
"""

from latchstore.aio.cache import AsyncCache
from latchstore.aio.store import AsyncStore
from latchstore.aio.transaction import AsyncTransaction
from latchstore.aio.watch import AsyncWatch

__all__ = ["AsyncCache", "AsyncStore", "AsyncTransaction", "AsyncWatch"]
