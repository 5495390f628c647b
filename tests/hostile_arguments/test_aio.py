"""Wrong and hostile arguments of what is awaited: as test_store.py has it for the plain methods.

The arguments are those of the plain methods, of the same tables.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstore import Cache, DictMemoryStore, EventManager
from latchstore.aio import AsyncCache, AsyncStore, AsyncTransaction, AsyncWatch
from latchstore.cache import inspection as cache_inspection
from latchstore.engine import inspection
from tests.hostile_arguments.offers import Calling, Kind, check_error, drawn, fuzzing
from tests.hostile_arguments.table import CACHE_CALLS, CALLS

#: Methods without arguments, and what is tested by itself.
OTHERS: dict[type, set[str]] = {
    AsyncStore: {"attempts", "close", "count", "flush", "store", "transaction", "wait_for", "watch"},
    AsyncTransaction: {
        "commit",
        "count",
        "doom",
        "notes",
        "on_commit",
        "on_rollback",
        "revision",
        "rollback",
        "transaction",
    },
    AsyncCache: {"cache", "clear", "contains", "memoize", "sweep"},
    AsyncWatch: {"close", "closed", "get"},
}
TABLE: dict[type, dict[str, dict[str, Kind]]] = {
    AsyncStore: CALLS,
    AsyncTransaction: CALLS,
    AsyncCache: CACHE_CALLS,
    AsyncWatch: {},
}


def called(cls: type) -> list[str]:
    """Return the names of the methods that are called with what is drawn."""
    return sorted({name for name in dir(cls) if not name.startswith("_")} - OTHERS[cls])


@pytest.mark.parametrize("cls", TABLE)
def test_every_public_method_is_called(cls: type) -> None:
    public = {name for name in dir(cls) if not name.startswith("_")}
    assert OTHERS[cls] <= public
    assert public - OTHERS[cls] <= set(TABLE[cls])


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls in TABLE for name in called(cls)])
@fuzzing
@given(chosen=st.data())
def test_arguments(cls: type, name: str, chosen: st.DataObject) -> None:
    """An error names the argument; the store goes on, in the same task and in another thread."""
    store = DictMemoryStore(EventManager(), lock_timeout=5.0)
    store.multiset(["kept", "fine"], [(b"", {}), (b"", {"n": 1})])
    cache = Cache[Any](store, codec="pickle", max_entries=10)
    parameters = inspect.signature(getattr(cls, name)).parameters
    kinds = {
        each: kind
        for each, kind in TABLE[cls][name].items()
        if each in parameters or "options" in parameters or "kwargs" in parameters
    }
    offers = drawn(chosen, kinds)
    arguments = {each: offer.make(store) for each, offer in offers.items()}

    async def main() -> None:
        awaited = AsyncStore(store)
        try:
            if cls is AsyncTransaction:
                async with awaited.transaction() as tx:
                    await getattr(tx, name)(**arguments)
            else:
                await getattr(awaited if cls is AsyncStore else AsyncCache(cache), name)(**arguments)
        except Exception as error:
            check_error(error, offers)
        Calling.busy = True
        try:
            await awaited.from_bytes("after", b"")
            await asyncio.to_thread(store.from_bytes, "after", b"1")
        finally:
            Calling.busy = False

    asyncio.run(main())
    inspection.check_idle(store)
    cache_inspection.check(cache)
    cache.close()
    store.close()
