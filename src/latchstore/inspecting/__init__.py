"""The commands ``inspect`` and ``top``: what a store holds, and what goes on in it, shown to a person.

`sources` opens what is looked at, without changing it: a file, a namespace of a server, a store of a module.
`report` has what ``inspect`` shows, `terms` what it is asked for, `tables` how it is printed. `collector`
gathers what ``top`` shows, `server` is its small web server, and the files beside it are its page.

It is a program: nothing imports it but the command line and ``latchstore.top``. It may import all stores,
caches and queues. Begin with ``sources.py``.
"""
