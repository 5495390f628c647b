"""The connections of event loops: one asynchronous connection of redis-py for each loop.

Calls of tasks send their commands through these (``delivery/awaiting.py``), as threads do through connections
of their own: an `Exchange` has those methods of redis-py's plain connections that ``client.py`` uses.

1. All tasks of a loop share its connection: commands of one turn of the loop are sent together, and the
   replies arrive in that order. The reply for a cancelled task is read and dropped.
2. If the connection is lost, so are all pending replies. A connection that must not be used any more is
   closed after its last reply.
3. It is closed when its loop shuts down its asynchronous generators, as ``asyncio.run`` does, and when the
   store is closed. A forked child leaves the parent's connection alone, and does not even free it: that would
   remove its socket from the selector, which the parent shares.

Thread safety: everything runs in the thread of the loop; any thread may use `Loops`.
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

#: Number of replies after which their timeout starts again.
_AT_A_TIME = 100

#: Connection errors of redis-py that are replies: the server has done nothing.
REFUSALS = (redis.BusyLoadingError, redis.AuthenticationError)

#: Errors of redis-py that are replies; all others are errors of the connection.
REPLIES = (redis.ResponseError, *REFUSALS)

#: The asynchronous counterparts of redis-py's plain connections.
_COUNTERPARTS: dict[type, type] = {
    redis.Connection: Connection,
    redis.SSLConnection: SSLConnection,
    redis.UnixDomainSocketConnection: UnixDomainSocketConnection,
    SentinelManagedConnection: Connection,
    SentinelManagedSSLConnection: SSLConnection,
}

#: Options of a plain connection that an asynchronous one does not inherit: those that the store sets itself,
#: and objects that send through plain connections.
_NOT_TAKEN_OVER = frozenset({
    "retry", "retry_on_error", "retry_on_timeout", "decode_responses", "protocol", "socket_timeout",
    "socket_connect_timeout", "parser_class", "redis_connect_func", "connection_pool", "event_dispatcher",
    "maint_notifications_config", "maint_notifications_pool_handler", "himport_registry",
    "oss_cluster_maint_notifications_handler",
})  # fmt: skip


def has_counterpart(pool: Any, is_cluster: bool) -> bool:
    """Return whether there are asynchronous counterparts of a pool's connections.

    There are none for the user's own connection classes, nor if a plain function of the user initializes
    each.
    """
    kind, options = pool.connection_class, pool.connection_kwargs
    if kind not in _COUNTERPARTS or (options.get("redis_connect_func") and not is_cluster):
        return False
    if isinstance(pool, SentinelConnectionPool) and not pool.is_master:
        return False
    accepted = _accepted(_COUNTERPARTS[kind])
    return all(name in accepted for name, value in options.items() if name.startswith("ssl_") and value)


def _accepted(kind: type) -> frozenset[str]:
    """Return the names of all options of a class of connections."""
    constructors = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
    return frozenset(name for each in constructors[:-1] for name in inspect.signature(each).parameters)


def counterpart(call: AwaitingCall, pool: Any, seconds: float, seconds_to_connect: float) -> LoopConnection:
    """Return a new, unconnected connection for the loop of a call, with the options of a pool."""
    kind = _COUNTERPARTS[pool.connection_class]
    accepted = _accepted(kind) - _NOT_TAKEN_OVER
    options = {name: value for name, value in pool.connection_kwargs.items() if name in accepted}
    if isinstance(pool, SentinelConnectionPool):
        options["host"], options["port"] = in_thread(pool.get_master_address, to_its_end=False)
    # redis-py's own timeout would need a task for each command, on Python 3.11.
    connection = kind(**options, protocol=2, socket_timeout=None, socket_connect_timeout=None)
    return LoopConnection(call, connection, seconds, seconds_to_connect)


class LoopConnection:
    """A connection that the tasks of a loop share.

    Parameters
    ----------
    call : AwaitingCall
        The call of the task that connects it.
    connection : redis.asyncio.Connection
    seconds : float
        Maximum seconds without a reply.
    seconds_to_connect : float
        Maximum seconds for connecting; initializing may take as long again as a reply.

    Attributes
    ----------
    generation : object
        Identifies the server's generation of connections that it belongs to.
    waiting : deque of asyncio.Future
        The futures of pending replies, in order.
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
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_lost = self._is_retired = False

    def connect(self) -> None:
        """Connect, and initialize the connection."""
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
        """Return whether it may be used to send commands."""
        return self.generation is generation and not self._is_lost

    def send(self, command: Sequence[bytes]) -> asyncio.Future[Any]:
        """Queue a command for the next turn of the loop; return the future of its reply."""
        reply = self._loop.create_future()
        self._unsent += command
        self.waiting.append(reply)
        if self._writing is None or self._writing.done():
            self._writing = self._start(self._write())
        if self._reading is None or self._reading.done():
            self._reading = self._start(self._read())
        return reply

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not in the context of the calling task.
        return self._loop.create_task(self._losing_on_errors(coroutine), context=Context())

    async def _write(self) -> None:
        """Send queued commands."""
        while self._unsent:
            commands, self._unsent = self._unsent, []
            async with asyncio.timeout(self._seconds):
                await self._connection.send_packed_command(commands)

    async def _read(self) -> None:
        """Read the pending replies."""
        while self.waiting:
            async with asyncio.timeout(self._seconds):
                for _ in range(min(len(self.waiting), _AT_A_TIME)):
                    await self._read_one()
        if self._is_retired:
            self.close()

    async def _read_one(self) -> None:
        try:
            reply = await self._connection.read_response(disconnect_on_error=False)
        except REPLIES as error:
            waiting = self.waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
        else:
            waiting = self.waiting.popleft()
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
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.done():
                waiting.set_exception(kind(why))
        self.close()

    def retire(self) -> None:
        """Close it after the last pending reply."""
        self._is_retired = True
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Close it now, without waiting for replies."""
        self._is_lost = True
        # redis-py has no public way to abort. Closing TLS takes until the server closes its end, and the loop
        # may be shut down before: its socket would be left open.
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            with suppress(RuntimeError):  # the loop is closed
                writer.transport.abort()
        closing = self._connection.disconnect(nowait=True)
        try:
            closing.send(None)
        except (StopIteration, RuntimeError):
            return  # it is closed already, possibly with its loop
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
        """Queue the command."""
        self._reply = self._connection.send(command)

    def read_response(self, disconnect_on_error: bool = True) -> Any:
        """Return the reply to the command."""
        try:
            return self._call.wait(self._reply)
        except TimeoutError as error:
            raise redis.TimeoutError("no reply in the time limit of a cancelled call") from error

    def disconnect(self) -> None:
        """Drop the reply: other tasks share the connection."""
        with suppress(RuntimeError):  # its loop is closed
            self._reply.cancel()


class Connector(Protocol):
    """Makes connections to a server.

    Attributes
    ----------
    generation : object
        Replaced when the present connections must not be used any more.
    """

    generation: object

    def connected(self, make: Callable[[], Any]) -> Any:
        """Return a new, connected connection."""

    def connect_loop(self, call: AwaitingCall) -> LoopConnection:
        """Return a new, unconnected connection for the loop of a call."""


class LoopConnections:
    """The connection of an event loop, and its retired predecessors.

    Parameters
    ----------
    is_closed : bool
        Whether the connection is closed when no reply is pending.

    Attributes
    ----------
    give : callable
        Returns an exchange.
    """

    def __init__(self, is_closed: bool) -> None:
        self._is_closed = is_closed
        self._current: LoopConnection | None = None
        # Held while a task connects; other tasks wait for it.
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
                connection.close()  # no task awaits replies any more

    def open(self, call: AwaitingCall) -> None:
        """Register the closing of the connection with its loop."""
        call.wait(anext(self._shutdown))

    def take(self, connector: Connector, call: AwaitingCall | None) -> Exchange:
        """Return an exchange, for one command of a call."""
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
            # A loss before it was connected is no reason to make another one.
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
        """Close the connection when no reply is pending; in the thread of the loop."""
        self.give = self._retire
        self._retire()


def _ignore(exchange: Exchange) -> None:
    pass


class Loops:
    """The connections to a server of all loops whose tasks have made calls."""

    def __init__(self) -> None:
        self._is_closed = False
        self._loops: dict[asyncio.AbstractEventLoop, LoopConnections] = {}

    def of(self, call: AwaitingCall) -> LoopConnections:
        """Return the connections of the loop of a call."""
        found = self._loops.get(call.loop)
        if found is None:
            for loop in list(self._loops):
                if loop.is_closed():
                    self._loops.pop(loop, None)
            self._loops[call.loop] = found = LoopConnections(self._is_closed)
            found.open(call)
        return found

    def close(self) -> None:
        """Close them, each in its loop; each read of a closed store then uses its own connection."""
        self._is_closed = True
        loops, self._loops = self._loops, {}
        for loop, connections in loops.items():
            try:
                loop.call_soon_threadsafe(connections.close)
            except RuntimeError:
                continue  # the loop is closed

    def reopen(self) -> None:
        """Keep connections again."""
        if self._is_closed:
            self._is_closed = False
            self._loops = {}

    def renew_in_child(self) -> None:
        """Leave the parent's connections to the parent: rule 3."""
        _of_parents.append(self._loops)
        self._loops = {}


_of_parents: list[Mapping[Any, Any]] = []
