"""An outer block that a signal handler or finalizer ends while a nested one is entered or left."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial

import pytest

from latchstore import DictMemoryStore, EventManager, TransactionClosedError
from latchstore.engine.inspection import check_idle
from tests.transaction_blocks.handlers import Handler


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("end", ["commit", "rollback", "doom"])
def test_an_outer_block_may_be_ended_at_any_call_of_a_nested_one(end: str, optimistic: bool) -> None:
    place = 0
    while True:
        place += 1
        store = DictMemoryStore(EventManager())
        block = store.transaction(optimistic=optimistic)
        handler = Handler(place, getattr(block, end))
        with suppress(TransactionClosedError), block:
            block.set("outer", (b"", {}))
            sys.setprofile(handler)
            try:
                with store.transaction() as nested:
                    nested.set("nested", (b"", {}))
            finally:
                sys.setprofile(None)
        check_idle(store)
        store.set("later", (b"", {}))
        store.close()
        if not handler.called:
            break
    assert place > 20


@pytest.mark.parametrize("optimistic", [False, True])
def test_a_block_in_the_middle_may_be_ended_at_any_call_of_a_nested_one(optimistic: bool) -> None:
    place = 0
    while True:
        place += 1
        store = DictMemoryStore(EventManager(), lock_timeout=0.0)
        with store.transaction(optimistic=optimistic) as outermost:
            block = store.transaction()
            # As the finalizer of a generator ends the block that it has: nested ones may be open.
            handler = Handler(place, partial(block.__exit__, GeneratorExit, None, None))
            with suppress(TransactionClosedError), block:
                block.set("middle", (b"", {}))
                sys.setprofile(handler)
                try:
                    with store.transaction() as nested:
                        nested.set("nested", (b"", {}))
                finally:
                    sys.setprofile(None)
            assert store.current_transaction() is outermost
            store.set("outermost", (b"", {}))
        check_idle(store)
        assert store.exists("outermost")
        assert store.exists("middle") != handler.called
        store.close()
        if not handler.called:
            break
    assert place > 20


@pytest.mark.parametrize("end", ["commit", "rollback", "doom"])
@pytest.mark.parametrize("ended", ["outer", "middle"])
def test_functions_registered_with_a_nested_block_are_called_as_its_changes_end(end: str, ended: str) -> None:
    place = 0
    while True:
        place += 1
        store = DictMemoryStore(EventManager())
        called: list[str] = []
        with (
            suppress(TransactionClosedError),
            store.transaction() as outer,
            suppress(TransactionClosedError),
            store.transaction() as middle,
        ):
            handler = Handler(place, getattr(outer if ended == "outer" else middle, end))
            middle.on_commit(partial(called.append, "middle"))
            with store.transaction() as nested:
                nested.set("nested", (b"", {}))
                nested.on_commit(partial(called.append, "commit"))
                nested.on_rollback(partial(called.append, "rollback"))
                sys.setprofile(handler)
            sys.setprofile(None)
        sys.setprofile(None)
        # Each function once, and those of the block in the middle, which may have been kept before, as well.
        assert called == (["middle", "commit"] if store.exists("nested") else ["rollback"])
        store.close()
        if not handler.called:
            break
    assert place > 10
