"""Children that are forked, looked after and waited for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from latchstore import DictMemoryStore, EventManager

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

#: Seconds after which a wait has failed, and a child is ended.
TIMEOUT = 20


def in_child(function: Callable[[], object]) -> str:
    """Run a function in a forked child; return what went wrong there, or nothing."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # To fork beside other threads, of which newer versions of Python warn, is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        report_and_exit(function, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return told or (f"wait status {status}" if status else "")


def report_and_exit(function: Callable[[], object], write: int) -> None:
    told, code = "", 0
    try:
        sys.settrace(None)
        end_in_time()
        function()
    except BaseException:
        told, code = traceback.format_exc(), 1
    finally:
        os.write(write, told.encode())
        os._exit(code)


def end_in_time() -> None:
    """Have this child ended if it hangs."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIMEOUT)


def new_store(**options: Any) -> DictMemoryStore:
    return DictMemoryStore(EventManager(), lock_timeout=5.0, **options)
