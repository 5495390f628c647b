"""A shared cache on a store that keeps its bound: expiring, and loaded by one thread at a time.

It imports from the engine and what is below it. Begin with ``shared.py``, which has `Cache`; it stands on
``loader.py``, ``writing.py`` and ``reading.py``. The bound itself is in ``engine/bounds.py``, which entry it
evicts in ``policies.py``. Loads: ``loading.py`` has those that run, ``attempts.py`` the steps of one call,
``failures.py`` what is kept of a failure, ``waits.py`` which thread waits for which. Memoized functions:
``memoizing.py``, and ``argument_keys.py`` for the keys of calls. ``near.py`` has the copies of a shared
cache's entries in one process, ``options.py`` how an entry is to be kept, ``counting.py`` the statistics.
"""

from latchstore.cache.near import NearCache
from latchstore.cache.policies import EvictionPolicy, Node
from latchstore.cache.shared import Cache

__all__ = ["Cache", "EvictionPolicy", "NearCache", "Node"]
