"""What Python without the GIL cannot do, whatever the store does: the tests of it are skipped there."""

from __future__ import annotations

import sys
import sysconfig

import pytest

#: Whether this Python was built so that it can run without the GIL.
WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

#: Each object has a lock of Python's own, for which a thread waits that finds another one changing it. After
#: a millisecond the lock is handed to it, still taken (``Python/lock.c``, ``mutex_unpark``), and a child that
#: is forked before the thread has woken up has that object locked for ever. Of 300 children that were forked
#: beside five threads with a plain dict, 236 hung in their first call of its ``get`` (3.13.15); with the GIL
#: none. Nothing that is written in Python can free such a lock.
fork_beside_busy_threads = pytest.mark.skipif(
    WITHOUT_GIL, reason="Python without the GIL leaves locks of shared objects taken in a child"
)


def skip_late_finalizer() -> None:
    """Skip a test of a finalizer that is called late in a process that has had two threads.

    Python 3.13 without the GIL makes modules, functions and classes immortal as soon as there is a second
    thread (its ``howto/free-threading-python``, "Immortalization"). As it cannot drop modules at the end, it
    empties them, and only then calls the finalizers of what was in them: no function finds its globals any
    more.
    """
    if WITHOUT_GIL and sys.version_info < (3, 14):
        pytest.skip("Python 3.13 without the GIL empties modules before it calls finalizers")
