"""Caches of web frameworks and libraries that keep what they hold in a `latchstore.Cache`.

`django`, `dogpile`, `cachelib` and `flask_caching` are each for the library of that name, which has to be
installed: ``latchstore[django]``, ``latchstore[dogpile]``, ``latchstore[flask]``. README.md has how to
configure them. `storing` is what they share.

They import from the cache and what is below it, and each from its own library alone. Begin with
``storing.py``; ``dogpile.py`` is the shortest of the others.
"""
