"""What the tests of the harness have in common."""

from __future__ import annotations

import ctypes
import threading

import pytest

from tests.interrupts.striker import set_exception


class Delivered(BaseException):
    """An exception that a thread sets for itself."""


@pytest.fixture(autouse=True)
def _no_fixed_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable that tox sets, and that the commands which repeat a run would begin with."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


@pytest.fixture(autouse=True)
def _no_exception_pending() -> None:
    """Take back that an exception is pending, which earlier tests have set in a thread that never goes on.

    CPython 3.11 looks for it at every bytecode from then on, and a thread whose bytecodes are traced does
    not get any further. It is taken back by the delivery of another one.
    """
    try:
        set_exception(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Delivered))
        while True:
            pass
    except Delivered:
        pass
