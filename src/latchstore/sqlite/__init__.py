"""A store in a SQLite file, shared by any number of threads and processes of one machine.

`SqliteStore` (``store.py``) is the store, `SqliteEngine` (``engine.py``) makes its commits. Each commit
writes its changes into a table of the same file, the log (``log.py``). Each process publishes the commits of
all processes from that log (``publication.py``; ``engine/following.py``). This package may import
``contract``, ``delivery`` and ``engine``.

Begin with ``engine.py``, whose docstring has the rules.
"""

from latchstore.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
