"""A store on a Redis or Valkey server, shared by any number of threads, processes and machines.

`RedisStore` (``store.py``) is the store, `RedisEngine` (``engine.py``) makes its commits, each by one script
on the server (``commit.lua``). What a commit has changed is in a stream, the log (``log.py``), from which
each process publishes what all of them have committed (``publication.py``), and by which snapshots are of
one instant (``view.py``). It may import ``contract``, ``delivery`` and ``engine``; redis-py, hiredis and
msgpack are the extra ``redis``.

Begin with ``engine.py``, whose docstring has the rules.
"""

from latchstore.contract.extras import missing_extra as _missing_extra

try:
    import hiredis as _hiredis  # noqa: F401
    import msgpack as _msgpack  # noqa: F401
    import redis as _redis  # noqa: F401
except ImportError as error:
    raise _missing_extra("RedisStore", "redis-py, hiredis and msgpack", "redis", error) from error

from latchstore.redis.store import RedisStore

__all__ = ["RedisStore"]
