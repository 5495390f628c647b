"""Loads for asyncio tasks; tasks and threads share one load of a key.

A task that begins a load runs the loader in another task and awaits it, so the load continues when the first
task is cancelled, as long as any caller waits for it. All others, tasks of any loop and threads, wait for the
load as in ``loading.py``.

Thread safety: that of ``loading.py``. A `Pass` makes the calls that may wait for a lock, a disk or a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Coroutine
from glob import escape
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from latchstore.cache.attempts import (
    Attempt,
    ForLoad,
    ForProcess,
    LoadInside,
    Stale,
    Steps,
    load_timeout,
)
from latchstore.cache.load import MISSING, Load, Outcome, Run, loading
from latchstore.cache.loader import CacheLoader
from latchstore.cache.loading import LONG, STRUCK, LoadTable
from latchstore.cache.memoizing import CacheInfo, FunctionKeys, ResultCache, Results
from latchstore.cache.near import UNSHARED
from latchstore.cache.options import Options
from latchstore.contract.arguments import describe
from latchstore.delivery.async_waiting import running_loop, sleep_async, wait_async
from latchstore.delivery.waiting import clock
from latchstore.engine.bounded import Leases
from latchstore.engine.entry_facts import REFRESH

P = ParamSpec("P")
# The parameters of a method without its instance.
Q = ParamSpec("Q")
S = TypeVar("S")
C = TypeVar("C", contravariant=True)
R = TypeVar("R", covariant=True)
T = TypeVar("T")

logger: logging.Logger = logging.getLogger("latchstore")

#: Seconds between two checks whether another process still loads a key: a tenth of the time waited so far.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.1


class Pass(Protocol):
    """Calls functions on behalf of a task: the cache's own and the caller's.

    Attributes
    ----------
    reads_at_once : bool
        Whether reads never wait, so that they are called directly.
    """

    reads_at_once: bool

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function of the cache that may wait."""

    async def call_here(self, function: Callable[[], T]) -> T:
        """Call a function of the cache that waits only if reads of the store wait."""

    async def call_loader(self, function: Callable[[], T]) -> T:
        """Call a function of the caller in another thread."""


class Loads(NamedTuple):
    """The parts of a cache that loads of tasks use.

    Attributes
    ----------
    find : callable
        Called with a key; returns its value, a `Stale` one, or `MISSING`.
    attempt : callable
        Called with the key, the result of `find`, and options; returns an Attempt.
    table : LoadTable
    leases : Leases or None
    defaults : Options
        The cache's defaults.
    """

    find: Callable[[str], Any]
    attempt: Callable[[str, Any, Options], Attempt]
    table: LoadTable
    leases: Leases | None
    defaults: Options


def loads_of(cache: CacheLoader[Any]) -> Loads:
    """Return the parts of a cache that loads of tasks use."""
    return Loads(cache._find, cache._attempt, cache._loads, cache._bounded.leases, cache._defaults)


def near_value(cache: CacheLoader[Any], key: str) -> Any:
    """Return the value of a key if a near cache may serve it without waiting; else `MISSING`."""
    near, bounded = cache._near, cache._bounded
    copy = None if near is None else near.copies.get(cache._naming.stored(key))
    if near is None or copy is None or bounded.current_transaction() is not None:
        return MISSING
    now = near.tick()
    is_served = now < near.fresh_until and now < copy.until and copy.noted is bounded
    # Check last that the copy is still there: rule 1 of near.py.
    if not is_served or REFRESH in copy.entry or near.copies.get(copy.key) is not copy:
        return MISSING
    copy.visited = True
    cache._counts.mine.near_hits += 1
    return copy.decode(cache._decoded) if copy.value is UNSHARED else copy.value


async def get_or_load_async(
    loads: Loads,
    how: Pass,
    key: str,
    loader: Callable[[], Any],
    options: Callable[[], Options],
    counted: Callable[[bool], object] = bool,
) -> Any:
    """Return the value of a key; load it once if it is missing, for all tasks and threads that request it.

    Parameters
    ----------
    loads : Loads
    how : Pass
    key : str
    loader : callable
        Called without arguments; a function or a coroutine function.
    options : callable
        Returns the options; called only when they are needed.
    counted : callable
        Called with True for a hit or another caller's load, with False if this caller loads.
    """
    if how.reads_at_once:
        # hot path: a hit of a cache in memory awaits nothing.
        found = loads.find(key)
    else:
        found = await how.call_here(lambda: loads.find(key))
    if is_fresh(found):
        counted(True)
        return found
    return await load_async(loads, how, key, found, loader, options(), counted)


def is_fresh(found: Any) -> bool:
    """Return whether a value was found that need not be loaded."""
    return found is not MISSING and type(found) is not Stale


async def load_async(
    loads: Loads,
    how: Pass,
    key: str,
    found: Any,
    loader: Callable[[], Any],
    checked: Options,
    counted: Callable[[bool], object] = bool,
) -> Any:
    """Do what `get_or_load_async` does after a miss: `found` is `MISSING` or a `Stale` value."""
    attempt = await how.call_here(lambda: loads.attempt(key, found, checked))
    attempt.run = LoopRun(running_loop())
    attempt.load.belong_to(attempt.run)
    ending, outer = _Ending(attempt), loading.get()
    try:
        is_to_load = await _begin(loads, how, attempt, ending, outer)
    except BaseException:
        ending.end()
        raise
    counted(not is_to_load)
    if not is_to_load:
        return attempt.value
    if isinstance(attempt, LoadInside):
        return await _load(how, attempt, loader, ending)
    return await _load_in_task(loads.table, how, attempt, loader, ending, outer)


class LoopRun(Run):
    """A call that loads keys in an event loop; closing the loop ends it as well."""

    __slots__ = ("_is_over", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_over = False

    @property
    def over(self) -> bool:
        return self._is_over or self._loop.is_closed()

    @over.setter
    def over(self, value: bool) -> None:
        self._is_over = value

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the loop; does nothing if the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)


class _Ending:
    """Ends an attempt: in the thread that takes its last step, or when this object is freed.

    It is freed with a coroutine that was never started, or that is dropped with its loop.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._has_ended = False

    def end(self) -> None:
        """End the attempt, unless it has ended."""
        if not self._has_ended:
            self._has_ended = self._attempt.run.over = True
            self._attempt.end()

    def step(self, steps: Steps, outcome: Outcome | None) -> tuple[ForLoad | ForProcess | None, bool]:
        """Take a step of the beginning; return what to await next, or None and the result."""
        try:
            return steps.send(outcome), False
        except StopIteration as end:
            if not end.value:
                self.end()
            return None, bool(end.value)
        finally:
            if self._attempt.run.over:
                # The task was cancelled, or its loop closed, while another thread took this step: release
                # whatever the step has acquired.
                self._attempt.end()

    def loaded(self, value: Any) -> None:
        """Keep the loaded value, and end the attempt."""
        try:
            self._attempt.loaded(value)
        finally:
            self.end()

    def failed(self, error: Exception) -> bool:
        """Record a failure, and end the attempt; return whether the caller raises it."""
        try:
            return self._attempt.failed(error)
        finally:
            self.end()

    def __del__(self) -> None:
        self.end()


async def _begin(loads: Loads, how: Pass, attempt: Attempt, ending: _Ending, outer: Load | None) -> bool:
    """Take the steps that begin an attempt; await what they wait for."""
    steps = attempt.steps()
    outcome: Outcome | None = None
    while True:
        wait, result = await how.call_here(functools.partial(ending.step, steps, outcome))
        if wait is None:
            return result
        if isinstance(wait, ForLoad):
            outcome = await _await_other(loads.table, wait.load, wait.deadline, outer)
        else:
            assert loads.leases is not None
            await _await_process(loads.leases, how, wait)


async def _await_process(leases: Leases, how: Pass, wait: ForProcess) -> None:
    """Await the end of another process's load by polling, so that no thread blocks for a long time.

    A blocked thread would be missing to the calls of other tasks, and keep this process from exiting.
    """
    begun = clock()
    while (holder := await how.call(functools.partial(leases.holder, wait.key))) is not None:
        waited = clock() - begun
        if wait.deadline is not None and clock() >= wait.deadline:
            raise load_timeout(wait.key, waited, holder)
        await sleep_async(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited / 10)))


async def _load(how: Pass, attempt: Attempt, loader: Callable[[], Any], ending: _Ending) -> Any:
    """Run a loader, and keep its result."""
    before = loading.set(attempt.load)
    try:
        try:
            value = await _result_of(how, loader)
        except Exception as error:
            failure = error
            if await how.call_here(lambda: ending.failed(failure)):
                raise
        except BaseException as error:
            attempt.failed(error)
            raise
        else:
            await how.call(lambda: ending.loaded(value))
        return attempt.value
    finally:
        ending.end()
        with contextlib.suppress(ValueError):  # it is freed elsewhere, with its loop
            loading.reset(before)


async def _result_of(how: Pass, loader: Callable[[], Any]) -> Any:
    result = loader() if is_async(loader) else await how.call_loader(loader)
    return await result if inspect.isawaitable(result) else result


def is_async(function: object) -> bool:
    """Return whether a function is a coroutine function, as far as that is known before the call."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 (not whether it can be called)
    )


async def _load_in_task(
    table: LoadTable,
    how: Pass,
    attempt: Attempt,
    loader: Callable[[], Any],
    ending: _Ending,
    outer: Load | None,
) -> Any:
    """Run a loader in another task and await it; the load continues as long as any caller awaits it."""
    load = attempt.load
    task = asyncio.get_running_loop().create_task(_load(how, attempt, loader, ending))
    task.add_done_callback(functools.partial(_note_end, ending))
    del ending
    try:
        with table.awaiting(outer, load):
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            load.orphan = weakref.ref(task)
            _cancel_unless_awaited(load)
        raise


def _note_end(ending: _Ending, task: asyncio.Task[Any]) -> None:
    """End an attempt whose task was cancelled before it began; keep asyncio from logging its exception.

    The outcome of the load notifies its waiters.
    """
    ending.end()
    if not task.cancelled():
        task.exception()


def _cancel_unless_awaited(load: Load) -> None:
    """Cancel a load's loader if the task that began the load was cancelled, and no caller waits for it."""
    if load.orphan is None or load.waiters.bells or not isinstance(load.run, LoopRun):
        return
    task = load.orphan()
    if task is not None:
        load.run.call_soon(task.cancel)


async def _await_other(table: LoadTable, load: Load, deadline: float | None, outer: Load | None) -> Outcome:
    """Await a load that another task or thread has begun; errors as in `LoadTable.wait_if_current`."""
    overtaken, begun = load.overtaken, clock()
    try:
        with table.awaiting(outer, load):
            await _await_end(load, begun, deadline)
    except asyncio.CancelledError:
        _cancel_unless_awaited(load)
        raise
    return STRUCK if overtaken or load.outcome is None else load.outcome


async def _await_end(load: Load, begun: float, deadline: float | None) -> None:
    while not await wait_async(load.waiters, load.is_over, _next_look(load, begun, deadline)):
        _note_long_wait(load, begun, deadline)


def _next_look(load: Load, begun: float, deadline: float | None) -> float | None:
    """Return the seconds until the deadline, or until the wait is long enough for a warning."""
    now = clock()
    until = [] if deadline is None else [deadline]
    if not load.warned:
        until.append(begun + LONG)
    return max(0.0, min(until) - now) if until else None


def _note_long_wait(load: Load, begun: float, deadline: float | None) -> None:
    """Raise LoadTimeoutError after the deadline; log a warning after a long wait."""
    waited = clock() - begun
    if deadline is not None and clock() >= deadline:
        raise load_timeout(load.key, waited, load.describe())
    if waited >= LONG and not load.warned:
        load.warned = True
        logger.warning(
            "a task has waited for key %r for %.3g s, which is loaded by %s",
            load.key,
            waited,
            load.describe(),
        )


# -- functions whose results are kept -------------------------------------------------------------


class _Taking(Protocol[C, Q, R]):
    """A coroutine function whose first parameter is an instance."""

    def __call__(self, first: C, /, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R]: ...


class AsyncMemoized(Protocol[P, R]):
    """A coroutine function whose results are cached; ``AsyncCache.memoize`` makes it.

    It is a function, so frameworks and classes treat it as one. The attributes of a memoized method take the
    instance as the first argument.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    @overload
    def __get__(self, instance: None, owner: type) -> AsyncMemoized[P, R]: ...

    @overload
    def __get__(
        self: _Taking[T, Q, S], instance: T, owner: type | None = None
    ) -> Callable[Q, Coroutine[Any, Any, S]]: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call's result."""

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of a call; return whether there was one."""
        ...

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses of the function; scans the keys of the whole cache."""

    async def cache_clear(self) -> None:
        """Remove all results of the function, and reset the counts."""


def memoized(
    cache: ResultCache,
    loads: Loads,
    how: Pass,
    options: Options,
    function: Callable[P, Coroutine[Any, Any, R]],
) -> AsyncMemoized[P, R]:
    """Return a coroutine function that caches the results of another one."""
    if not is_async(function):
        raise TypeError(
            f"AsyncCache.memoize takes a coroutine function, got {describe(function)}; "
            "use Cache.memoize for plain functions"
        )
    own = FunctionKeys(Results(cache, loads.find, loads.attempt, options), function)

    def count(found: bool) -> None:
        counts = own.counts.mine
        if found:
            counts.hits += 1
        else:
            counts.misses += 1

    @functools.wraps(function)
    async def remember(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await get_or_load_async(
            loads,
            how,
            own.key_of(args, kwargs),
            functools.partial(function, *args, **kwargs),
            functools.partial(own.results.options_of, args, kwargs),
            count,
        )
        return result

    async def invalidate(*args: P.args, **kwargs: P.kwargs) -> bool:
        key = own.key_of(args, kwargs)
        return await how.call(lambda: cache.delete(key))

    async def clear() -> None:
        await how.call(lambda: cache.delete_glob(f"{escape(own.name)}(*"))
        own.reset()

    remember.cache_key = lambda *args, **kwargs: own.key_of(args, kwargs)  # type: ignore[attr-defined]
    remember.invalidate = invalidate  # type: ignore[attr-defined]
    remember.cache_info = own.info  # type: ignore[attr-defined]
    remember.cache_clear = clear  # type: ignore[attr-defined]
    return cast("AsyncMemoized[P, R]", remember)
