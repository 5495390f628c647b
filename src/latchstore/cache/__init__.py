"""A shared cache on top of a store: bounded, expiring, and loaded by one thread at a time.

`shared` has the cache, `ledger` its books, `policies` what goes first, `loading` the loads, `memoizing`
functions whose results are kept, `counting` the statistics.
"""

from latchstore.cache.policies import EvictionPolicy
from latchstore.cache.shared import Cache

__all__ = ["Cache", "EvictionPolicy"]
