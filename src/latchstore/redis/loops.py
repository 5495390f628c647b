"""The connections of event loops: one of redis-py's own asynchronous ones for each loop.

What a task calls sends its commands by these (``delivery/awaiting.py``), as a thread does by connections of
its own: an `Exchange` has the methods of redis-py's plain connections that ``client.py`` uses.

1. All tasks of a loop share its connection: what they ask for in one turn of the loop is sent at once, and
   the replies come in that order. The reply to a task that was cancelled is read, and dropped.
2. If the connection is lost, so are all replies that are awaited. One that is not to be used any more is
   closed when the last reply has come.
3. It is closed when its loop shuts its asynchronous generators down, as ``asyncio.run`` does, and when the
   store is closed. A forked child leaves the parent's to it, and does not even free it: that would take its
   socket out of the selector, which the parent has as well.

Thread safety: all is done in the thread of the loop; `Loops` may be used by any thread.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Protocol, TypeVar

import redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection

from latchstore.delivery.awaiting import AwaitingCall, in_thread

T = TypeVar("T")

#: How many replies have to come before the time for them begins anew.
_AT_A_TIME = 100

#: Connection errors of redis-py's that are replies: the server has done nothing.
REFUSALS = (redis.BusyLoadingError, redis.AuthenticationError)

#: Errors of redis-py's that are replies; any other one is that of a connection.
REPLIES = (redis.ResponseError, *REFUSALS)

#: The asynchronous counterparts of redis-py's plain connections.
_COUNTERPARTS: dict[type, type] = {
    redis.Connection: Connection,
    redis.SSLConnection: SSLConnection,
    redis.UnixDomainSocketConnection: UnixDomainSocketConnection,
    SentinelManagedConnection: Connection,
    SentinelManagedSSLConnection: SSLConnection,
}

#: Options of a plain connection that an asynchronous one does not take over: what the store sets itself, and
#: objects that send by plain connections.
_NOT_TAKEN_OVER = frozenset({
    "retry", "retry_on_error", "retry_on_timeout", "decode_responses", "protocol", "socket_timeout",
    "socket_connect_timeout", "parser_class", "redis_connect_func", "connection_pool", "event_dispatcher",
    "maint_notifications_config", "maint_notifications_pool_handler", "himport_registry",
    "oss_cluster_maint_notifications_handler",
})  # fmt: skip


def has_counterpart(pool: Any, is_cluster: bool) -> bool:
    """Return whether there are asynchronous connections like those of a pool.

    There are none of connections of the user's own, nor where a plain function of the user's begins each.
    """
    kind, options = pool.connection_class, pool.connection_kwargs
    if kind not in _COUNTERPARTS or (options.get("redis_connect_func") and not is_cluster):
        return False
    if isinstance(pool, SentinelConnectionPool) and not pool.is_master:
        return False
    accepted = _accepted(_COUNTERPARTS[kind])
    return all(name in accepted for name, value in options.items() if name.startswith("ssl_") and value)


def _accepted(kind: type) -> frozenset[str]:
    """Return the names of all options that a class of connections takes."""
    constructors = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
    return frozenset(name for each in constructors[:-1] for name in inspect.signature(each).parameters)


def counterpart(call: AwaitingCall, pool: Any, seconds: float, seconds_to_connect: float) -> LoopConnection:
    """Return a new connection of the loop of a call, like those of a pool; it is to be connected."""
    kind = _COUNTERPARTS[pool.connection_class]
    accepted = _accepted(kind) - _NOT_TAKEN_OVER
    options = {name: value for name, value in pool.connection_kwargs.items() if name in accepted}
    if isinstance(pool, SentinelConnectionPool):
        options["host"], options["port"] = in_thread(pool.get_master_address, to_its_end=False)
    # Its own timeout would take a task for each command, on Python 3.11.
    connection = kind(**options, protocol=2, socket_timeout=None, socket_connect_timeout=None)
    return LoopConnection(call, connection, seconds, seconds_to_connect)


class LoopConnection:
    """A connection that the tasks of a loop share.

    Parameters
    ----------
    call : AwaitingCall
        Of the task that connects it.
    connection : redis.asyncio.Connection
    seconds : float
        That may pass without a reply.
    seconds_to_connect : float
        That may pass until it is connected, and again as many as a reply may take for what it begins with.

    Attributes
    ----------
    generation : object
        By which the server knows whether it is to be used.
    """

    generation: object

    def __init__(
        self, call: AwaitingCall, connection: Any, seconds: float, seconds_to_connect: float
    ) -> None:
        self._call: AwaitingCall | None = call
        self._loop = call.loop
        self._connection = connection
        self._seconds = seconds
        self._seconds_to_connect = seconds_to_connect
        self._unsent: list[bytes] = []
        # Who awaits the replies, in the order in which they come.
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_lost = self._is_retired = False

    def connect(self) -> None:
        """Connect, and send what a connection begins with."""
        call, self._call = self._call, None
        assert call is not None
        seconds = self._seconds_to_connect + self._seconds
        try:
            call.wait(_in_time(self._connection.connect(), seconds))
        except TimeoutError as error:
            self.close()
            raise redis.TimeoutError(f"not connected in {seconds:g} s") from error
        except BaseException:
            self.close()
            raise

    def is_usable(self, generation: object) -> bool:
        """Return whether commands may be sent by it."""
        return self.generation is generation and not self._is_lost

    def send(self, command: Sequence[bytes]) -> asyncio.Future[Any]:
        """Have a command sent in the next turn of the loop; return what will have the reply."""
        reply = self._loop.create_future()
        self._unsent += command
        self._waiting.append(reply)
        if self._writing is None or self._writing.done():
            self._writing = self._start(self._write())
        if self._reading is None or self._reading.done():
            self._reading = self._start(self._read())
        return reply

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not in the context of the task that happens to call.
        return self._loop.create_task(self._losing_on_errors(coroutine), context=Context())

    async def _write(self) -> None:
        """Send what is to be sent."""
        while self._unsent:
            commands, self._unsent = self._unsent, []
            async with asyncio.timeout(self._seconds):
                await self._connection.send_packed_command(commands)

    async def _read(self) -> None:
        """Hand out the replies that are awaited."""
        while self._waiting:
            async with asyncio.timeout(self._seconds):
                for _ in range(min(len(self._waiting), _AT_A_TIME)):
                    await self._read_one()
        if self._is_retired:
            self.close()

    async def _read_one(self) -> None:
        try:
            reply = await self._connection.read_response(disconnect_on_error=False)
        except REPLIES as error:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
        else:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(reply)

    async def _losing_on_errors(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except TimeoutError:
            self._lose(redis.TimeoutError, f"no reply in {self._seconds:g} s")
        except (redis.RedisError, OSError) as error:
            self._lose(redis.ConnectionError, str(error))
        except BaseException:
            self._lose(redis.ConnectionError, "the event loop is shut down")
            raise

    def _lose(self, kind: type[redis.RedisError], why: str) -> None:
        self._is_lost = True
        self._unsent.clear()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(kind(why))
        self.close()

    def retire(self) -> None:
        """Close it when all replies have come that are awaited."""
        self._is_retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close it now, without waiting for that."""
        self._is_lost = True
        closing = self._connection.disconnect(nowait=True)
        try:
            closing.send(None)
        except (StopIteration, RuntimeError):
            return  # it is closed, or its loop is, and it with that
        finally:
            closing.close()


async def _in_time(awaitable: Awaitable[T], seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


class Exchange:
    """A command of a task and its reply, with the methods of a plain connection.

    Parameters
    ----------
    connection : LoopConnection
    call : AwaitingCall
    """

    __slots__ = ("_call", "_connection", "_reply")

    def __init__(self, connection: LoopConnection, call: AwaitingCall) -> None:
        self._connection = connection
        self._call = call

    def send_packed_command(self, command: Sequence[bytes]) -> None:
        """Have the command sent."""
        self._reply = self._connection.send(command)

    def read_response(self, disconnect_on_error: bool = True) -> Any:
        """Return the reply to it."""
        try:
            return self._call.wait(self._reply)
        except TimeoutError as error:
            raise redis.TimeoutError("no reply in the time that a cancelled call has") from error

    def disconnect(self) -> None:
        """Have the reply dropped: the connection is that of other tasks as well."""
        with suppress(RuntimeError):  # of a loop that is closed
            self._reply.cancel()


class Connector(Protocol):
    """What makes connections to a server.

    Attributes
    ----------
    generation : object
        Replaced when connections that there are now are to be used no more.
    """

    generation: object

    def connected(self, make: Callable[[], Any]) -> Any:
        """Return a new connection that is connected."""

    def connect_loop(self, call: AwaitingCall) -> LoopConnection:
        """Return a new one for the loop of a call, which is to be connected."""


class LoopConnections:
    """The connection of an event loop, and those that were to be used before it.

    Parameters
    ----------
    is_closed : bool
        Whether the connection is closed when nobody awaits a reply.

    Attributes
    ----------
    give : callable
        Takes an exchange back.
    """

    def __init__(self, is_closed: bool) -> None:
        self._is_closed = is_closed
        self._current: LoopConnection | None = None
        # Held while a task connects; others wait for that.
        self._connecting = asyncio.Lock()
        self._shutdown = self._until_shutdown()
        self.give: Callable[[Exchange], None] = self._retire if is_closed else _ignore

    async def _until_shutdown(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            connection = self._current
            self.close()
            if connection is not None:
                connection.close()  # nobody awaits replies any more

    def open(self, call: AwaitingCall) -> None:
        """Have it closed with its loop."""
        call.wait(anext(self._shutdown))

    def take(self, connector: Connector, call: AwaitingCall | None) -> Exchange:
        """Return what sends one command of a call."""
        assert call is not None
        connection = self._current
        if connection is None or not connection.is_usable(connector.generation):
            connection = self._renewed(connector, call)
        return Exchange(connection, call)

    def _renewed(self, connector: Connector, call: AwaitingCall) -> LoopConnection:
        call.wait(self._connecting.acquire())
        try:
            connection = self._current
            if connection is not None and connection.is_usable(connector.generation):
                return connection  # another task has connected it
            self._retire()
            made: LoopConnection = connector.connected(partial(connector.connect_loop, call))
            # What was lost before it was connected is no reason to make another one.
            made.generation = connector.generation
            self._current = made
            return made
        finally:
            self._connecting.release()

    def _retire(self, exchange: Exchange | None = None) -> None:
        connection, self._current = self._current, None
        if connection is not None:
            connection.retire()

    def close(self) -> None:
        """Close the connection when nobody awaits a reply any more; in the thread of the loop."""
        self.give = self._retire
        self._retire()


def _ignore(exchange: Exchange) -> None:
    pass


class Loops:
    """The connections to a server of all loops in which tasks have called."""

    def __init__(self) -> None:
        self._is_closed = False
        self._loops: dict[asyncio.AbstractEventLoop, LoopConnections] = {}

    def of(self, call: AwaitingCall) -> LoopConnections:
        """Return those of the loop of a call."""
        found = self._loops.get(call.loop)
        if found is None:
            for loop in list(self._loops):
                if loop.is_closed():
                    self._loops.pop(loop, None)
            self._loops[call.loop] = found = LoopConnections(self._is_closed)
            found.open(call)
        return found

    def close(self) -> None:
        """Close them, each in its loop; what a closed store reads takes a connection for its own time."""
        self._is_closed = True
        loops, self._loops = self._loops, {}
        for loop, connections in loops.items():
            try:
                loop.call_soon_threadsafe(connections.close)
            except RuntimeError:
                continue  # it is closed

    def reopen(self) -> None:
        """Keep connections again."""
        if self._is_closed:
            self._is_closed = False
            self._loops = {}

    def renew_in_child(self) -> None:
        """Leave the parent's connections to it: rule 3."""
        _of_parents.append(self._loops)
        self._loops = {}


_of_parents: list[Mapping[Any, Any]] = []
