"""The engine: entries in memory, transactions over them, and `DictMemoryStore`, which combines both.

It imports from the contract and from delivery. Begin with ``table.py``, which has the one path of a commit,
and go on with ``memory.py``, which makes a store of it. ``interface.py`` is the interface for other engines,
``bounded.py`` that for caches, whose bounds are kept by ``bounds.py`` in the commits. Engines whose entries
other processes change share ``owned.py`` (the writer), ``following.py`` and ``publication.py`` (the commits
of all processes).
"""
