"""A store in a SQLite file, shared by any number of threads and processes of one machine.

`SqliteStore` (``store.py``) is the store, `SqliteEngine` (``engine.py``) makes its commits. What a commit has
changed is in a table of the same file, the log (``log.py``), from which each process publishes what all of
them have committed (``publication.py``; ``following.py`` of the engine's room). It may import ``contract``,
``delivery`` and ``engine``.

Begin with ``engine.py``, whose docstring has the rules.
"""

from latchstore.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
