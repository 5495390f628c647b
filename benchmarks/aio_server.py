"""What does a call of a `RedisStore` cost that 100 tasks of one loop make at a time?

The calls of `AsyncStore` await the server on one connection of the loop. In threads: the same where greenlet
is not installed. redis.asyncio: a client with a pool of connections, the same reads of the same hashes; of
writes, such a hash alone, which is no commit. All in interleaved rounds of one process, with the server of
the tests on a unix socket. The time of the processor is that of this process alone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.measure import Answer, Figure, Ratio, markdown, ratio_table
from latchstore import EventManager
from latchstore.aio import AsyncStore
from tests.redis.servers import Server, preferred, program

OURS, THREADS, PEER = "AsyncStore", "AsyncStore, in threads", "redis.asyncio"

TASKS, EACH = 100, 20
_DATA = b"x" * 100

Call = Callable[[str], Awaitable[Any]]


def _in_threads(store: Any) -> AsyncStore:
    """Return what is made where greenlet is not installed."""
    hidden = {name: sys.modules.pop(name, None) for name in ("latchstore.aio.greenlets", "greenlet")}
    sys.modules["greenlet"] = None  # type: ignore[assignment]
    try:
        return AsyncStore(store)
    finally:
        del sys.modules["greenlet"]
        sys.modules.update({name: module for name, module in hidden.items() if module is not None})


async def _all(call: Call) -> tuple[float, float]:
    """Have all tasks make a call again and again; return microseconds for each call, and of the processor."""

    async def work(key: str) -> None:
        for _ in range(EACH):
            await call(key)

    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(f"key {number}") for number in range(TASKS)))
    calls = TASKS * EACH / 1e6
    return (time.perf_counter() - begun) / calls, (time.process_time() - used) / calls


async def _rounds(url: str, rounds: int) -> dict[tuple[str, str], list[tuple[float, float]]]:
    import redis.asyncio

    from latchstore import RedisStore

    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    client = redis.asyncio.Redis.from_url(url, protocol=2, max_connections=TASKS)
    async with AsyncStore(RedisStore(url, EventManager(), namespace="bench")) as ours:
        threads = _in_threads(ours.store)
        ways: dict[tuple[str, str], Call] = {
            ("get", OURS): ours.to_bytes,
            ("get", THREADS): threads.to_bytes,
            ("get", PEER): lambda key: client.hget(f"{{bench}}:e:{key}", "d"),
            ("set", OURS): lambda key: ours.from_bytes(key, _DATA),
            ("set", THREADS): lambda key: threads.from_bytes(key, _DATA),
            ("set", PEER): lambda key: client.hset(f"{{raw}}:e:{key}", "d", _DATA),
        }
        for number in range(TASKS):
            await ours.from_bytes(f"key {number}", _DATA)
        for number in range(rounds + 1):
            for way, call in ways.items():
                measured = await _all(call)
                if number:  # the first makes the connections
                    times.setdefault(way, []).append(measured)
    await client.aclose()
    return times


def run(quick: bool = False) -> Answer:
    """Measure; return the answer."""
    if not program(preferred()):
        return Answer("No server is installed.", [], [])
    with ExitStack() as stack:
        server = stack.enter_context(Server(preferred()))
        times = asyncio.run(_rounds(server.url, 2 if quick else 9))
    ratios = []
    for what in ("get", "set"):
        ours, threads = times[what, OURS], times[what, THREADS]
        for place, name in enumerate(("time", "processor")):
            ratios.append(
                Ratio.of(
                    f"{what} by {TASKS} tasks, {name}, awaited / in threads",
                    [each[place] for each in ours],
                    [each[place] for each in threads],
                    "us",
                    1.0,
                )
            )
    figures = [
        Figure.of(f"{what} by {TASKS} tasks, {who}, {name}", [each[place] for each in measured], "us")
        for (what, who), measured in times.items()
        for place, name in enumerate(("time", "processor"))
    ]
    rows = [
        [
            f"{what}, {who}",
            *(f"{sorted(column)[len(column) // 2]:,.0f}" for column in zip(*measured, strict=True)),
        ]
        for (what, who), measured in times.items()
    ]
    text = "\n\n".join([ratio_table(ratios), markdown(["call", "us", "us of the processor"], rows)])
    return Answer(text, ratios, figures)
