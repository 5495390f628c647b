"""A store for actions of workloads that run as tasks: the methods of `AsyncStore` are awaited.

An action is plain code, which a task calls so that it can await (``delivery/awaiting.py``). So tasks and
threads run the same workloads.

Thread safety: that of the store; a call belongs to its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from latchstore.aio import AsyncStore
from latchstore.delivery.awaiting import awaiting_call

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: The methods that are awaited. All others are those of the store itself, called in the task.
AWAITED = frozenset({
    "get", "to_bytes", "get_metadata", "exists", "multiget", "multiget_metadata", "query", "query_keys",
    "glob", "set", "from_bytes", "set_metadata", "update_metadata", "delete", "multiset", "multiset_metadata",
    "multiupdate_metadata", "flush",
})  # fmt: skip


class Block(Protocol):
    """An asynchronous block: a transaction, or an attempt at one."""

    def __aenter__(self) -> Awaitable[Any]: ...

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[bool | None]: ...


async def _in_turn(call: Callable[[], Awaitable[T]]) -> T:
    """Await a call after other tasks could run: otherwise tasks on a store in memory would hardly meet."""
    await asyncio.sleep(0)
    return await call()


def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    here = awaiting_call()
    if here is None:
        raise RuntimeError("the loop of the task is closed")
    return here.wait(_in_turn(call))


class TaskStore:
    """The methods of a store, for plain code that runs in a task.

    Transactions are always optimistic, like those of tasks.

    Parameters
    ----------
    store : AsyncStore
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name not in AWAITED:
            return getattr(self._store.store, name)
        method = getattr(self._store, name)
        return lambda *args, **options: _awaited(partial(method, *args, **options))

    def __len__(self) -> int:
        return _awaited(self._store.count)

    def __bool__(self) -> bool:
        """Return True, with keys or without."""
        return True

    def __contains__(self, key: str) -> bool:
        return _awaited(partial(self._store.exists, key))

    def transaction(
        self, notes: str = "", *, timeout: float | None = None, optimistic: bool = True
    ) -> TaskBlock:
        """Return a block of the task."""
        return TaskBlock(self._store.transaction(notes, timeout=timeout))

    def attempts(
        self, notes: str = "", *, tries: int = 100, timeout: float | None = None
    ) -> Iterator[TaskBlock]:
        """Return attempts at a block of the task."""
        attempts = self._store.attempts(notes, tries=tries, timeout=timeout)
        while True:
            try:
                attempt = _awaited(attempts.__anext__)
            except StopAsyncIteration:
                return
            yield TaskBlock(attempt)

    def transactional(self, notes: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that calls a function in attempts."""

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            @wraps(function)
            def call(*args: P.args, **options: P.kwargs) -> R:
                for attempt in self.attempts(notes):
                    with attempt:
                        result = function(*args, **options)
                return result

            return call

        return decorate


class TaskBlock:
    """A block of a task, entered and left by plain code."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def __enter__(self) -> Any:
        return _awaited(self._block.__aenter__)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if awaiting_call() is not None:
            return bool(_awaited(partial(self._block.__aexit__, kind, error, traceback)))
        # The loop is gone: as for an `async with` block whose coroutine is closed.
        ending = self._block.__aexit__(GeneratorExit, GeneratorExit(), None).__await__()
        for _ in ending:
            break
        return False
