"""The engine: entries in memory, transactions over them, and `DictMemoryStore`, which wires both together.

It imports from the contract and from delivery. Begin with ``table.py``, which has the one way a commit goes,
and go on with ``memory.py``, which gives it to a store. ``interface.py`` is the seam for other engines,
``bounded.py`` that for caches, whose bounds ``bounds.py`` keeps in the commits. What engines share whose
entries other processes change as well: ``owned.py`` (who writes), ``following.py`` and ``publication.py``
(what all of them have committed).
"""
