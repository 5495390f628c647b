"""The commands ``inspect`` and ``top``: the contents and the activity of a store.

`sources` opens a store without changing it: a file, a namespace of a server, a store of a module. `report`
has the data for ``inspect``, `terms` parses its queries, `tables` prints. `collector` gathers the data for
``top``, `server` is its small web server, and the other files are its page.

Only the command line and ``latchstore.top`` import this program. It may import all stores, caches and queues.
Begin with ``sources.py``.
"""
