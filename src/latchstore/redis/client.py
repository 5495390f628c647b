"""The server, as an engine calls it: by redis-py's connections, one for each thread that calls.

1. A call takes a connection, sends one command, reads the whole reply, and gives the connection back by one
   call in C, after that and not before. A connection whose call was broken off anywhere, by an error of the
   network's or by an exception that has struck, is dropped: no later call finds the reply of another one.
2. redis-py's own retries are off: it cannot know which commands may be sent twice. `call` and `run` are for
   those that change nothing or may be done again, and are asked again, on new connections. `once` sends
   one time; its caller has to find out what has become of a command whose reply is lost.
3. A forked child begins without connections.
4. While the slot of the namespace is moved from one node of a cluster to another, some of its keys are there
   already, and a node sends on whoever asks for one that it has not (ASK). What reads one key follows. A
   script needs all keys in one place, and nothing is done of one that is sent on: it waits for the end of the
   move. So nobody writes in between.

Thread safety: `_idle` is changed by single operations of the list; a connection that was taken from it
belongs to one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from latchstore.contract.arguments import describe
from latchstore.contract.errors import AuthorizationError, StoreError
from latchstore.redis.pauses import Pauses
from latchstore.redis.scripts import Script

#: Options of redis-py's that the store sets itself, and why.
_OWN_OPTIONS = {
    "retry": "the store asks again itself, where that cannot make two commits of one",
    "retry_on_error": "the store asks again itself, where that cannot make two commits of one",
    "retry_on_timeout": "the store asks again itself, where that cannot make two commits of one",
    "decode_responses": "keys and data are bytes to the server",
    "protocol": "the store reads the replies of RESP2",
    "encoding": "keys are UTF-8 with surrogates",
    "encoding_errors": "keys are UTF-8 with surrogates",
}

#: Seconds, where the user has given none: a server that was stopped must not hang a call for ever.
_TIMEOUTS = {"socket_timeout": 10.0, "socket_connect_timeout": 5.0}

#: How often is sent what may be done again, until its reply comes: where one reply of a hundred is lost, all
#: calls come through. After a timeout it is sent once more.
_MOST_TIMES = 5

#: Seconds for which a script waits while its slot is moved.
_MOVE = 30.0

#: What a new connection is not tried again after.
_NOT_REPEATED = (redis.TimeoutError, redis.AuthenticationError)


#: What redis-py raises if no node of a cluster can be reached, or none has the slot: no `redis.RedisError`.
NO_CLUSTER = redis.exceptions.RedisClusterException

#: Commands that need all keys of a namespace in one place.
_OF_ALL_KEYS = (b"EVALSHA", b"EVAL")

#: Connection errors of redis-py's that are replies: the server has done nothing.
_REFUSALS = (redis.BusyLoadingError, redis.AuthenticationError)


class Disconnected(Exception):  # noqa: N818 (no error of the caller's)
    """The reply of a command did not come.

    Attributes
    ----------
    error : Exception
    sent : bool
        Whether the server may have done what the command says.
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
        As `redis.Redis.from_url` takes it, or a client.
    namespace : str
    options : mapping
        What else `from_url` takes.

    Attributes
    ----------
    tag : bytes
        The namespace in braces, with which all keys begin: those of a store are in one slot of a cluster.
    name : str
        For errors: where the server is.
    """

    def __init__(self, url: Any, namespace: str, options: Mapping[str, Any]) -> None:
        self.tag: bytes = b"{" + namespace.encode("utf-8", "surrogatepass") + b"}"
        self._entry_prefix = self.tag + b":e:"
        if isinstance(url, str):
            _refuse_own(options)
            self._client: Any = redis.Redis.from_url(url, **options)
        elif options:
            raise TypeError(f"a ready client takes no further options, got {', '.join(sorted(options))}")
        elif isinstance(url, (redis.Redis, redis.RedisCluster)):
            self._client = url
        else:
            raise TypeError(f"url must be a str, or a client of redis-py's, got {describe(url)}")
        self._idle: list[Any] = []
        self.give: Callable[[Any], None] = self._idle.append
        self.name: str = self._name()

    # -- connections ------------------------------------------------------------------------------

    def _pool(self) -> Any:
        """Return the pool whose connections those of the store are like."""
        client = self._client
        if isinstance(client, redis.RedisCluster):
            cluster: Any = client
            node = cluster.get_node_from_key(self.tag.decode("utf-8", "surrogatepass"))
            return cluster.get_redis_connection(node).connection_pool
        return client.connection_pool

    def connect(self, **options: Any) -> Any:
        """Return a new connection; it connects when it first sends."""
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
            If the reply has not come.
        redis.ResponseError
            If the server has refused it.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connected()
        return self._once(connection, command)

    def _connected(self) -> Any:
        """Return a new connection, after what it begins with: passwords, the number of the database."""
        for left in reversed(range(_MOST_TIMES)):
            try:
                connection = self.connect()
                connection.connect()
                break
            except (redis.ConnectionError, redis.TimeoutError, NO_CLUSTER) as error:
                if not left or isinstance(error, _NOT_REPEATED):
                    raise Disconnected(error, False) from error
                self._locate()
        return connection

    def _locate(self) -> None:
        """Look anew where the slot is, in a cluster."""
        client: Any = self._client
        if isinstance(client, redis.RedisCluster):
            # If no node answers, what it was told before stays.
            with suppress(redis.RedisError, NO_CLUSTER):
                client.nodes_manager.initialize()
            with suppress(redis.RedisError, NO_CLUSTER):
                self.name = self._name()

    def _once(self, connection: Any, command: tuple[Any, ...], moves: int = _MOST_TIMES) -> Any:
        sent = False
        try:
            connection.send_packed_command((hiredis.pack_command(command),))
            sent = True  # all of it: the server does nothing with a part
            reply = connection.read_response(disconnect_on_error=True)
        except redis.exceptions.MovedError:
            # The slot is another node's by now, and nothing was done.
            connection.disconnect()
            self.drop_idle()
            self._locate()
            if not moves:
                raise
            return self._once(self._connected(), command, moves - 1)
        except redis.exceptions.AskError as asked:
            self.give(connection)  # it is whole: the reply was read
            if command[0] in _OF_ALL_KEYS:
                raise
            return self._follow(asked, command)
        except redis.ReadOnlyError as error:
            # It was the primary, and nothing was done: by a new connection the name may lead to the new one.
            connection.disconnect()
            self.drop_idle()
            raise Disconnected(error, False) from error
        except redis.ResponseError:
            self.give(connection)  # it is whole: the reply was read
            raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            raise Disconnected(error, sent and not isinstance(error, _REFUSALS)) from error
        except BaseException:
            connection.disconnect()  # struck: at once, and not when the collector finds it
            raise
        self.give(connection)
        return reply

    def _follow(self, asked: Any, command: tuple[Any, ...]) -> Any:
        """Send a command that reads one key to the node that its slot is being moved to."""
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
        """Send a command that may be done again, and return its reply; again if that is lost."""
        try:
            return self.once(*command)
        except Disconnected:
            return self._again(self.once, command)
        except redis.RedisError as error:
            raise self.failure_of(error) from error

    def _again(self, send: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Send again what may be done again, on new connections; raise what the last time has raised."""
        for left in reversed(range(_MOST_TIMES - 1)):
            self.drop_idle()  # those that were idle have the same server
            try:
                return send(*arguments)
            except Disconnected as error:
                if not left or isinstance(error.error, redis.TimeoutError):
                    raise self.failure_of(error) from error
            except redis.RedisError as error:
                raise self.failure_of(error) from error
        raise AssertionError("the last time returns or raises")

    def once_script(self, script: Script, *arguments: Any) -> Any:
        """Run a script as `once` does."""
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
        """Run a script that may be run again, and return its reply; again if that is lost."""
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
        """Return what is raised in place of an error of redis-py's."""
        if isinstance(error, Disconnected):
            error = error.error
        if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            return AuthorizationError(f"{self.name}: {error}")
        if isinstance(error, redis.TimeoutError):
            return TimeoutError(f"{self.name}: {error}")
        if isinstance(error, redis.exceptions.AskError):
            slot = f"slot {error.slot_id} is being moved to {error.host}:{error.port}"
            return ConnectionError(f"{self.name}: {slot}, and was not there after {_MOVE:g} s")
        if isinstance(error, (redis.ConnectionError, NO_CLUSTER, redis.exceptions.ClusterDownError)):
            return ConnectionError(f"{self.name}: {error}")
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error):
            return OSError(errno.ENOMEM, f"the server has no memory left (maxmemory): {error}", self.name)
        if isinstance(error, redis.ReadOnlyError):
            return OSError(
                errno.EROFS, f"the server is a replica, which cannot be written: {error}", self.name
            )
        return StoreError(f"{self.name}: {error}")

    # -- its end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect the connections that nobody uses, and those that are used when they are given back."""
        self.give = _disconnect
        self.drop_idle()

    def reopen(self) -> None:
        """Keep connections again."""
        self.give = self._idle.append

    def drop_idle(self) -> None:
        """Disconnect the connections that nobody uses."""
        idle = self._idle
        while idle:
            try:
                idle.pop().disconnect()
            except IndexError:
                return  # another thread was quicker

    def renew_in_child(self) -> None:
        """Leave the parent's connections to it, in a forked child."""
        self._idle = []
        self.give = self._idle.append


def _disconnect(connection: Any) -> None:
    connection.disconnect()


def _refuse_own(options: Mapping[str, Any]) -> None:
    for name, reason in _OWN_OPTIONS.items():
        if name in options:
            raise TypeError(f"{name} cannot be set: {reason}")
