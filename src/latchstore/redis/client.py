"""The server, as an engine calls it: through connections of redis-py, one for each calling thread or task.

1. A call takes a connection, sends one command, reads the whole reply, and only then gives the connection
   back, by one call in C. A connection whose call was interrupted, by a network error or by an exception from
   outside, is dropped, so that no later call reads the reply of another one.
2. redis-py's own retries are disabled: it cannot know which commands may be sent twice. `call` and `run` are
   for commands that change nothing or may be repeated; they are sent again on new connections. `once` sends
   only once; its caller must determine the outcome of a command whose reply is lost.
3. A forked child begins without connections.
4. While the slot of the namespace is being moved to another node of a cluster, some of its keys are there
   already, and a node redirects requests for keys that it lacks (ASK). A read of one key follows. A script
   needs all keys in one place, and has no effect if it is redirected: it waits for the end of the move. So no
   write comes in between.
5. The calls of a task use asynchronous connections of its loop (``loops.py``), and await the replies.

Thread safety: `idle` is changed by single operations of the list; a connection taken from it belongs to one
thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from latchstore.contract.arguments import describe
from latchstore.contract.errors import AuthorizationError, StoreError
from latchstore.delivery.awaiting import AwaitingCall, awaiting_call, in_thread
from latchstore.redis.loops import (
    REFUSALS,
    LoopConnection,
    LoopConnections,
    Loops,
    counterpart,
    has_counterpart,
)
from latchstore.redis.pauses import Pauses
from latchstore.redis.scripts import Script

#: Options of redis-py that the store sets itself, with the reasons.
_OWN_OPTIONS = {
    "retry": "the store repeats commands itself, if that cannot commit twice",
    "retry_on_error": "the store repeats commands itself, if that cannot commit twice",
    "retry_on_timeout": "the store repeats commands itself, if that cannot commit twice",
    "decode_responses": "keys and data are bytes on the server",
    "protocol": "the store reads the replies of RESP2",
    "encoding": "keys are UTF-8 with surrogates",
    "encoding_errors": "keys are UTF-8 with surrogates",
}

#: Default timeouts in seconds: a server that has stopped must not block a call forever.
_TIMEOUTS = {"socket_timeout": 10.0, "socket_connect_timeout": 5.0}

#: Maximum number of times that a repeatable command is sent: if one of a hundred replies is lost, all calls
#: succeed. After a timeout it is sent once more only.
_MOST_TIMES = 5

#: Seconds for which a script waits while its slot is being moved.
_MOVE = 30.0

#: Errors after which a new connection is not tried again.
_NOT_REPEATED = (redis.TimeoutError, redis.AuthenticationError)


#: Raised by redis-py if no node of a cluster can be reached, or none has the slot; not a `redis.RedisError`.
NO_CLUSTER = redis.exceptions.RedisClusterException

#: Commands that need all keys of a namespace in one place.
_OF_ALL_KEYS = (b"EVALSHA", b"EVAL")


class Disconnected(Exception):  # noqa: N818 (not an error of the caller)
    """The reply of a command was lost.

    Attributes
    ----------
    error : Exception
    sent : bool
        Whether the server may have run the command.
    """

    def __init__(self, error: Exception, sent: bool) -> None:
        super().__init__(str(error))
        self.error: Exception = error
        self.sent: bool = sent


class Server:
    """A Redis or Valkey server.

    Parameters
    ----------
    url : str or redis.Redis or redis.RedisCluster
        As for `redis.Redis.from_url`, or a client.
    namespace : str
    options : mapping
        Other arguments of `from_url`.

    Attributes
    ----------
    tag : bytes
        The namespace in braces, the prefix of all keys; so the keys of a store are in one slot of a cluster.
    name : str
        The address of the server, for errors.
    serves_loops : bool
        Whether calls of tasks can await the server.
    generation : object
        Replaced when the present connections must no longer be used.
    """

    def __init__(self, url: Any, namespace: str, options: Mapping[str, Any]) -> None:
        self.tag: bytes = b"{" + namespace.encode("utf-8", "surrogatepass") + b"}"
        self._entry_prefix = self.tag + b":e:"
        if isinstance(url, str):
            _refuse_own(options)
            self._client: Any = redis.Redis.from_url(url, **options)
        elif options:
            raise TypeError(
                f"a client accepts no further options: configure the client, got {', '.join(sorted(options))}"
            )
        elif isinstance(url, (redis.Redis, redis.RedisCluster)):
            self._client = url
        else:
            raise TypeError(f"url must be a str or a client of redis-py, got {describe(url)}")
        self._threads = _Threads()
        self._loops = Loops()
        self.generation: object = object()
        self.serves_loops: bool = has_counterpart(self._pool(), isinstance(self._client, redis.RedisCluster))
        self.name: str = self._name()

    # -- connections ------------------------------------------------------------------------------

    def _pool(self) -> Any:
        """Return the client's pool, whose options the store's connections use."""
        client = self._client
        if isinstance(client, redis.RedisCluster):
            cluster: Any = client
            node = cluster.get_node_from_key(self.tag.decode("utf-8", "surrogatepass"))
            return cluster.get_redis_connection(node).connection_pool
        return client.connection_pool

    def connect(self, **options: Any) -> Any:
        """Return a new connection; it connects at the first command."""
        pool = self._pool()
        own = {
            **pool.connection_kwargs,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "retry_on_timeout": False,
            "decode_responses": False,
            "protocol": 2,
            **options,
        }
        for name, seconds in _TIMEOUTS.items():
            if own.get(name) is None:
                own[name] = seconds
        return pool.connection_class(**own)

    def connect_loop(self, call: AwaitingCall) -> LoopConnection:
        """Return a new, unconnected connection for the loop of a call."""
        pool = self._pool()
        seconds = [pool.connection_kwargs.get(name) or default for name, default in _TIMEOUTS.items()]
        return counterpart(call, pool, *seconds)

    def _name(self) -> str:
        found = self._pool().connection_kwargs
        if "path" in found:
            return f"unix://{found['path']}"
        return f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"

    # -- calling ----------------------------------------------------------------------------------

    def once(self, *command: Any) -> Any:
        """Send a command and return its reply.

        Raises
        ------
        Disconnected
            If the reply was lost.
        redis.ResponseError
            If the server has refused the command.
        """
        call = awaiting_call()
        return self._once(self._threads if call is None else self._loops.of(call), call, command)

    def connected(self, make: Callable[[], Any]) -> Any:
        """Return a new, initialized connection: with password and database number."""
        for left in reversed(range(_MOST_TIMES)):
            try:
                connection = make()
                connection.connect()
                break
            except (redis.ConnectionError, redis.TimeoutError, NO_CLUSTER) as error:
                if not left or isinstance(error, _NOT_REPEATED):
                    raise Disconnected(error, False) from error
                in_thread(self._locate)
        return connection

    def _locate(self) -> None:
        """Find the node of the slot again, in a cluster."""
        client: Any = self._client
        if isinstance(client, redis.RedisCluster):
            # If no node answers, the previous result stays.
            with suppress(redis.RedisError, NO_CLUSTER):
                client.nodes_manager.initialize()
            with suppress(redis.RedisError, NO_CLUSTER):
                self.name = self._name()

    def _once(
        self,
        connections: _Threads | LoopConnections,
        call: AwaitingCall | None,
        command: tuple[Any, ...],
        moves: int = _MOST_TIMES,
    ) -> Any:
        connection = connections.take(self, call)
        sent = False
        try:
            connection.send_packed_command((hiredis.pack_command(command),))
            sent = True  # the server ignores an incomplete command
            reply = connection.read_response(disconnect_on_error=True)
        except redis.exceptions.MovedError:
            # The slot has moved to another node, and nothing was done.
            connection.disconnect()
            self.drop_idle()
            in_thread(self._locate)
            if not moves:
                raise
            return self._once(connections, call, command, moves - 1)
        except redis.exceptions.AskError as asked:
            connections.give(connection)  # usable: the reply was read
            if command[0] in _OF_ALL_KEYS:
                raise
            return in_thread(partial(self._follow, asked, command))
        except redis.ReadOnlyError as error:
            # It was the primary, and nothing was done; on a new connection the name may lead to the new
            # primary.
            connection.disconnect()
            self.drop_idle()
            raise Disconnected(error, False) from error
        except redis.ResponseError:
            connections.give(connection)  # usable: the reply was read
            raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            raise Disconnected(error, sent and not isinstance(error, REFUSALS)) from error
        except BaseException:
            connection.disconnect()  # interrupted: now, not when the collector finds it
            raise
        connections.give(connection)
        return reply

    def _follow(self, asked: Any, command: tuple[Any, ...]) -> Any:
        """Send a command that reads one key to the node to which its slot is being moved."""
        connection = self.connect(host=asked.host, port=asked.port)
        try:
            connection.send_packed_command(tuple(map(hiredis.pack_command, ((b"ASKING",), command))))
            connection.read_response()
            return connection.read_response()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Disconnected(error, True) from error
        finally:
            connection.disconnect()

    def call(self, *command: Any) -> Any:
        """Send a repeatable command, and return its reply; send it again if the reply is lost."""
        try:
            return self.once(*command)
        except Disconnected:
            return self._again(self.once, command)
        except redis.RedisError as error:
            raise self.failure_of(error) from error

    def _again(self, send: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Repeat a command on new connections; raise the error of the last attempt."""
        for left in reversed(range(_MOST_TIMES - 1)):
            self.drop_idle()  # idle connections have the same server
            try:
                return send(*arguments)
            except Disconnected as error:
                if not left or isinstance(error.error, redis.TimeoutError):
                    raise self.failure_of(error) from error
            except redis.RedisError as error:
                raise self.failure_of(error) from error
        raise AssertionError("the last attempt returns or raises")

    def once_script(self, script: Script, *arguments: Any) -> Any:
        """Run a script like `once`."""
        try:
            return self.once(b"EVALSHA", script.digest, 1, self.tag, *arguments)
        except redis.exceptions.NoScriptError:
            return self.once(b"EVAL", script.text, 1, self.tag, *arguments)
        except redis.exceptions.AskError:
            pauses = Pauses(_MOVE)
        while True:
            pauses.sleep()
            try:
                return self.once(b"EVAL", script.text, 1, self.tag, *arguments)
            except redis.exceptions.AskError:
                if pauses.are_over:
                    raise

    def run(self, script: Script, *arguments: Any) -> Any:
        """Run a repeatable script, and return its reply; run it again if the reply is lost."""
        try:
            return self.once_script(script, *arguments)
        except Disconnected:
            return self._again(self.once_script, (script, *arguments))
        except redis.RedisError as error:
            raise self.failure_of(error) from error

    def data(self, key: bytes) -> bytes | None:
        """Return the data of a key, or None."""
        found: bytes | None = self.call(b"HGET", self._entry_prefix + key, b"d")
        return found

    def entry(self, key: bytes) -> list[bytes]:
        """Return the fields of an entry; empty if there is none."""
        found: list[bytes] = self.call(b"HGETALL", self._entry_prefix + key)
        return found

    def failure_of(self, error: Exception) -> Exception:
        """Return the exception to raise in place of an error of redis-py."""
        if isinstance(error, Disconnected):
            error = error.error
        if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            return AuthorizationError(f"{self.name}: {error}")
        if isinstance(error, redis.TimeoutError):
            return TimeoutError(f"{self.name}: {error}")
        if isinstance(error, redis.exceptions.AskError):
            slot = f"slot {error.slot_id} is being moved to {error.host}:{error.port}"
            return ConnectionError(f"{self.name}: {slot}, and the move did not end in {_MOVE:g} s")
        if isinstance(error, (redis.ConnectionError, NO_CLUSTER, redis.exceptions.ClusterDownError)):
            return ConnectionError(f"{self.name}: {error}")
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error):
            return OSError(errno.ENOMEM, f"the server has no memory left (maxmemory): {error}", self.name)
        if isinstance(error, redis.ReadOnlyError):
            return OSError(errno.EROFS, f"the server is a read-only replica: {error}", self.name)
        return StoreError(f"{self.name}: {error}")

    # -- closing -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect unused connections now, and others when they are given back."""
        self._threads.give = _disconnect
        self.drop_idle()
        self._loops.close()

    def reopen(self) -> None:
        """Keep connections again."""
        self._threads.give = self._threads.idle.append
        self._loops.reopen()

    def drop_idle(self) -> None:
        """Disconnect unused connections of threads now, and those of loops before their next use."""
        self.generation = object()
        idle = self._threads.idle
        while idle:
            try:
                idle.pop().disconnect()
            except IndexError:
                return  # another thread was faster

    def renew_in_child(self) -> None:
        """Leave the parent's connections to the parent, in a forked child."""
        self._threads = _Threads()
        self._loops.renew_in_child()


class _Threads:
    """The idle connections of this process's threads.

    Attributes
    ----------
    give : callable
        Returns a connection to the pool; one call in C.
    """

    __slots__ = ("give", "idle")

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self.give: Callable[[Any], None] = self.idle.append

    def take(self, server: Server, call: AwaitingCall | None) -> Any:
        """Return a connected connection."""
        try:
            return self.idle.pop()
        except IndexError:
            return server.connected(server.connect)


def _disconnect(connection: Any) -> None:
    connection.disconnect()


def _refuse_own(options: Mapping[str, Any]) -> None:
    for name, reason in _OWN_OPTIONS.items():
        if name in options:
            raise TypeError(f"{name} cannot be set: {reason}")
