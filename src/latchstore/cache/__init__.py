"""A shared cache on top of a store: bounded, expiring, and loaded by one thread at a time.

`shared` has the cache, `ledger` its books, `policies` what goes first, `counting` the statistics. Loads:
`loading` has those that run, `attempts` the steps of one call, `failures` what is kept of a failure, `waits`
which thread waits for which. Memoized functions: `memoizing`, and `argument_keys` for the keys of calls.
"""

from latchstore.cache.policies import EvictionPolicy
from latchstore.cache.shared import Cache

__all__ = ["Cache", "EvictionPolicy"]
