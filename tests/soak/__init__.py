"""A soak: one store, everything at the same time, for as long as one likes.

Threads write, read, watch, save and are struck by exceptions, children are forked, listeners fail, other
stores come and go. Every few seconds all of that rests, and what must hold then is looked at: `invariants`.

In every other round memory is traced and no child is forked: the lock of tracemalloc is not renewed in a
child, which hangs inside os.fork if another thread of the parent held it.

``python -m tests.soak --minutes 10``, or ``tox -e soak -- --minutes 10``.
"""
