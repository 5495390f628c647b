"""A store on a Redis or Valkey server, shared by any number of threads, processes and machines.

`RedisStore` (``store.py``) is the store, `RedisEngine` (``engine.py``) makes its commits, each by one script
on the server (``commit.lua``). Each commit writes its changes to a stream, the log (``log.py``). Each process
publishes the commits of all processes from the log (``publication.py``), and snapshots use it to show one
instant (``view.py``). This package may import ``contract``, ``delivery`` and ``engine``; the extra ``redis``
installs redis-py, hiredis and msgpack.

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
