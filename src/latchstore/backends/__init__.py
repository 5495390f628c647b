"""Cache backends of web frameworks and libraries that store their values in a `latchstore.Cache`.

`django`, `dogpile`, `cachelib` and `flask_caching` are each for the library of that name, which must be
installed: ``latchstore[django]``, ``latchstore[dogpile]``, ``latchstore[flask]``. README.md shows how to
configure them. `storing` has the code that they share.

They import the cache and the packages below it, and each its own library. Begin with ``storing.py``;
``dogpile.py`` is the shortest of the others.
"""
