"""Arguments of a kind that does something else than was meant, or nothing, without a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore, EventManager, SqliteStore, WorkQueue


async def coroutine_function(*arguments: object) -> None:
    pytest.fail("it was run")


def in_block(call: Callable[[Any], object]) -> Callable[[DictMemoryStore], None]:
    def made(store: DictMemoryStore) -> None:
        with store.transaction() as transaction:
            call(transaction)

    return made


CALLS: dict[str, tuple[Callable[[DictMemoryStore], object], str]] = {
    "run": (lambda store: WorkQueue[Any](store, "q").run(coroutine_function), "asyncio.run"),
    "wait_for": (lambda store: store.wait_for(coroutine_function, 0), "AsyncStore(store).wait_for"),
    "transactional": (lambda store: store.transactional()(coroutine_function), "AsyncStore"),
    "on_commit": (in_block(lambda transaction: transaction.on_commit(coroutine_function)), "a task"),
    "on_rollback": (in_block(lambda transaction: transaction.on_rollback(coroutine_function)), "a task"),
    "modify": (lambda store: Cache[Any]().modify("a", coroutine_function, default=1), "await"),
    "get_or_load": (lambda store: Cache[Any]().get_or_load("a", coroutine_function), "AsyncCache"),
}


@pytest.mark.parametrize("name", CALLS)
def test_coroutine_functions_that_nobody_would_await(name: str) -> None:
    """Called, they run nothing: a job would be acknowledged that was never done."""
    call, advice = CALLS[name]
    store = DictMemoryStore(EventManager())
    WorkQueue[Any](store, "q").put(1)
    with pytest.raises(TypeError, match=f"must return a value, not a coroutine, got .*{re.escape(advice)}"):
        call(store)
    assert WorkQueue[Any](store, "q").stats()["waiting"] == 1


def test_what_is_no_function_is_not_decorated() -> None:
    with pytest.raises(TypeError, match="function must be callable, got int 3"):
        DictMemoryStore(EventManager()).transactional("notes")(3)  # type: ignore[arg-type]


def test_terms_in_the_place_of_select() -> None:
    store = DictMemoryStore(EventManager())
    with pytest.raises(TypeError, match=r"^select must be names of items, got dict .*: pass terms as where="):
        store.query({"kind": 1})


@pytest.mark.parametrize("name", ["lru", "s3-fifo"])
def test_policies_are_named_as_they_were_given(tmp_path: Path, name: str) -> None:
    with (
        SqliteStore(tmp_path / "store", EventManager()) as store,
        pytest.raises(ValueError, match=f"shared by all processes; '{name}' keeps its order in memory"),
    ):
        Cache(store, policy=name)


def test_a_file_for_a_store_in_memory_and_the_other_way_round() -> None:
    with pytest.raises(TypeError, match=r"got str 'a\.db': for a store in a file, use SqliteStore\(path\)$"):
        DictMemoryStore("a.db")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got ':memory:': for a store in memory, use Dict"):
        SqliteStore(":memory:")
