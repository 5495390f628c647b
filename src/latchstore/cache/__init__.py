"""A shared cache on a store that enforces its bound: entries expire, and one thread loads a missing key.

This package imports the engine and the packages below it. Begin with ``shared.py``, which has `Cache`; its
base classes are in ``loader.py``, ``writing.py`` and ``reading.py``. ``engine/bounds.py`` enforces the bound,
``policies.py`` picks the entries to evict. Loads: ``loading.py`` has the running loads, ``attempts.py`` the
steps of one call, ``failures.py`` the failures that are kept, ``waits.py`` which thread waits for which.
Memoized functions: ``memoizing.py``, and ``argument_keys.py`` for the keys of calls. ``near.py`` has the
copies of a shared cache's entries in one process, ``options.py`` the options of entries, ``counting.py`` the
statistics.
"""

from latchstore.cache.near import NearCache
from latchstore.cache.policies import EvictionPolicy, Node
from latchstore.cache.shared import Cache

__all__ = ["Cache", "EvictionPolicy", "NearCache", "Node"]
