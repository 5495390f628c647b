"""A proxy before a server of the tests, on a unix socket: it loses replies, or holds them up.

The request is passed on, so the server does what it asks for; the connection is closed when the answer comes.
Which answers are lost is up to a *judge*: a function that is called with the bytes of each request when its
answer begins.

As a process of its own, which prints its socket and ends when standard input does, it loses a share of all
replies::

    python -m tests.redis.proxy SERVER --share 0.01 --seed 7

Thread safety: all connections are served by one thread, which also calls the judge; `Proxy.release` and the
attributes may be used by any thread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import TracebackType

from tests.redis.servers import PATIENCE


class Reply(Enum):
    """What becomes of a reply: it is passed on, lost with its connection, or held until `Proxy.release`."""

    PASSED = "passed"
    LOST = "lost"
    HELD = "held"


Judge = Callable[[bytes], Reply]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def share(lost: float, seed: int) -> Judge:
    """Return a judge that loses a share of all replies, by chance."""
    chance = random.Random(seed)
    return lambda request: Reply.LOST if chance.random() < lost else Reply.PASSED


class Proxy:
    """A proxy that runs in a thread, from the entry of a ``with`` block to its end.

    Parameters
    ----------
    server : str or Path
        The socket of the server.
    judge : callable
        Given the bytes of a request, returns what becomes of the reply. It may be replaced at any time.

    Attributes
    ----------
    judge : callable
    lost, held : int
        How many replies were lost, and were held up, so far.
    socket : Path
    url : str
        For clients, as redis-py takes it.
    """

    def __init__(self, server: str | Path, judge: Judge = lambda request: Reply.PASSED) -> None:
        self.judge = judge
        self.lost = self.held = 0
        self._directory = Path(tempfile.mkdtemp(prefix="latch-"))
        self.socket = self._directory / "socket"
        self.url = f"unix://{self.socket}"
        self._traffic = Traffic(server, self.socket, self)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(PATIENCE), "the proxy has not started"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._traffic.from_outside(self._traffic.ended)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the proxy has not ended"
        shutil.rmtree(self._directory, ignore_errors=True)

    def release(self) -> None:
        """Pass on the replies that are held up."""
        self._traffic.from_outside(self._traffic.released)

    def _run(self) -> None:
        asyncio.run(self._traffic.serve(self._ready.set))


class Traffic:
    """The connections through a proxy, and its loop.

    Parameters
    ----------
    server, socket : str or Path
        Where requests are passed on to, and where they come from.
    proxy : Proxy
        Has the judge, and counts.
    """

    def __init__(self, server: str | Path, socket: str | Path, proxy: Proxy) -> None:
        self._server, self._socket, self._proxy = str(server), str(socket), proxy
        self._loop: asyncio.AbstractEventLoop
        self.ended: asyncio.Event
        self.released: asyncio.Event

    def from_outside(self, event: asyncio.Event) -> None:
        """Set an event of the loop, from another thread."""
        self._loop.call_soon_threadsafe(event.set)

    async def serve(self, ready: Callable[[], object]) -> None:
        """Serve connections until it is ended."""
        self._loop = asyncio.get_running_loop()
        self.ended, self.released = asyncio.Event(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._connection(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        listener = await asyncio.start_unix_server(connected, self._socket)
        ready()
        await self.ended.wait()
        listener.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):  # of a server that is gone
                answers, requests = await asyncio.open_unix_connection(self._server)
                try:
                    await self._both_ways((reader, writer), (answers, requests))
                finally:
                    requests.transport.abort()
        finally:
            writer.transport.abort()

    async def _both_ways(self, client: Ends, server: Ends) -> None:
        pending = bytearray()
        ways = [
            self._loop.create_task(self._requests(client[0], server[1], pending)),
            self._loop.create_task(self._replies(server[0], client[1], pending)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)  # errors of connections that are gone

    async def _requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, pending: bytearray
    ) -> None:
        while data := await reader.read(1 << 16):
            pending += data
            server.write(data)
            await server.drain()

    async def _replies(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, pending: bytearray
    ) -> None:
        proxy = self._proxy
        while data := await reader.read(1 << 16):
            # The first part of an answer: all requests up to here are judged as one.
            request, pending[:] = bytes(pending), b""
            reply = proxy.judge(request) if request else Reply.PASSED
            if reply is Reply.LOST:
                proxy.lost += 1
                return
            if reply is Reply.HELD:
                proxy.held += 1
                self.released.clear()
                await self.released.wait()
            client.write(data)
            await client.drain()


def main(words: list[str] | None = None) -> None:
    """Run a proxy until standard input ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("server")
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    with Proxy(options.server, share(options.share, options.seed)) as proxy:
        print(proxy.socket, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
