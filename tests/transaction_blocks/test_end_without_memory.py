"""The functions of a block that ends where there is no memory: none of them is kept for ever."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from latchstore import DictMemoryStore, EventManager
from tests.interrupts.shortage import Attempt, hoarded, starve_in_children


class Function:
    """What is registered."""

    def __call__(self) -> None: ...


@contextmanager
def ending(nested: bool) -> Iterator[Attempt]:
    """Give what has a request of the end of a block fail."""
    _testcapi = pytest.importorskip("_testcapi", reason="needs the interpreter's own tests")

    def attempt(number: int, failures: int) -> tuple[bool, list[str]]:
        store = DictMemoryStore(EventManager())
        function = Function()
        reference = weakref.ref(function)
        failed = False
        outer = store.transaction()
        outer.__enter__()
        block = store.transaction() if nested else outer
        if nested:
            block.__enter__()
        block.on_commit(function)
        block.set("k", (b"", {}))
        hoard = hoarded()
        _testcapi.set_nomemory(number, number + failures)
        try:
            block.__exit__(None, None, None)
        except Exception:  # MemoryError, or what the interpreter makes of it
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        del hoard, function
        if nested:
            outer.__exit__(None, None, None)
        store.close()
        del outer, block
        return failed, [] if reference() is None else [f"request {number}: the function is kept"]

    with suppress(GeneratorExit):
        yield attempt


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("nested", [False, True])
def test_no_function_is_kept_for_ever(nested: bool) -> None:
    """CPython 3.11 and 3.12 keep what ``list`` was given where it gets no memory.

    With the functions of a cache's `clear` its loads were kept out from then on.
    """
    pytest.importorskip("_testcapi", reason="needs the interpreter's own tests")
    count, _ = starve_in_children("end", lambda: ending(nested), 1, 1)
    assert count.wrong == []
    assert count.struck > 3
