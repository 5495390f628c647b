"""A shared cache on a store that keeps its bound: expiring, and loaded by one thread at a time.

It imports from the engine and what is below it. Begin with ``shared.py``, which has `Cache` and what loads;
it stands on ``reading.py`` and ``writing.py``. The bound itself is in ``engine/bounds.py``, which entry it
evicts in ``policies.py``. ``loading.py`` has the loads that run, ``memoizing.py`` functions whose results are
kept, ``options.py`` how an entry is to be kept, ``counting.py`` the statistics.
"""

from latchstore.cache.policies import EvictionPolicy
from latchstore.cache.shared import Cache

__all__ = ["Cache", "EvictionPolicy"]
