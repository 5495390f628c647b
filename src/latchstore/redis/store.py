"""`RedisStore`: a store over a `RedisEngine`.

Thread safety: that of ``engine.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from latchstore.contract.arguments import (
    DEFAULT_BUFFER_SIZE,
    alike,
    checked_count,
    checked_timeout,
    describe,
    exact_string,
)
from latchstore.contract.codec import UnnamedCodec
from latchstore.contract.event_manager import BaseEventManager
from latchstore.contract.ordering import Ordered, checked_indexes
from latchstore.engine.bounded import BoundedStore, Traits
from latchstore.engine.limits import Limits
from latchstore.engine.publishing import Publisher
from latchstore.engine.shared_store import SharedIndexes, SharedStore
from latchstore.engine.store_access import StoreAccess
from latchstore.redis.client import Server
from latchstore.redis.engine import RedisEngine
from latchstore.redis.opening import open_namespace

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class RedisStore(SharedStore):
    """A key-value store on a Redis or Valkey server that any number of processes and machines share.

    Parameters
    ----------
    url : str or redis.Redis or redis.RedisCluster
        Address of the server, as for ``redis.Redis.from_url`` (``redis://``, ``rediss://``, ``unix://``), or
        a client, for example of a Sentinel or a cluster. The store makes its own connections, with the
        client's options.
    event_manager : BaseEventManager, optional
        Receives the events, encore's own included; the process-wide default if None.
    namespace : str
        Prefix of all keys of the store on the server, in braces; so they are in one slot of a cluster.
    indexes : iterable of str or Ordered
        Names of metadata items to index. One index serves equality, ranges, order and limit; all processes
        maintain the indexes that any of them has added.
    lock_timeout : Seconds
        Maximum seconds to wait for another writer, before a LockTimeoutError that names it.
    lease : Seconds
        How long other processes wait for an exclusive transaction whose process has stopped. While the
        process runs, a thread renews the lease; a process that resumes after its lease has expired cannot
        commit.
    max_pending_events : int or None
        Maximum number of events that wait for their listeners; then writers wait, at most `lock_timeout`
        seconds. None for no limit.
    history : int
        Number of commits that the server keeps for ``watch(since=...)``, for snapshots and optimistic
        transactions, and for processes that read the commits of others.
    **client_options
        Other arguments of ``redis.Redis.from_url``, such as ``password``, ``socket_timeout`` or
        ``ssl_ca_certs``.

    Raises
    ------
    StoreError
        If the server is older than 7.0, is a replica, or evicts keys when its memory is full.
    StoreFormatError
        If a newer version has written the namespace.
    ConnectionError
        If the server cannot be reached.

    Thread safety
    -------------
    Any number of threads, processes and machines may use the server at the same time. Each process opens
    a store of its own; a store that was opened before a fork may be used in the child.
    """

    __slots__ = ("_redis",)

    def __init__(
        self,
        url: Any,
        event_manager: BaseEventManager | None = None,
        *,
        namespace: str,
        indexes: Iterable[str | Ordered] = (),
        lock_timeout: Seconds = 30.0,
        lease: Seconds = 10.0,
        max_pending_events: int | None = 100_000,
        history: int = 10_000,
        **client_options: Any,
    ) -> None:
        timeout = _checked_seconds(lock_timeout, "lock_timeout")
        seconds = _checked_seconds(lease, "lease")
        if not seconds:
            raise ValueError("lease must be more than 0 seconds")
        wanted = checked_indexes(indexes)
        kept = checked_count(history, "history", 1)
        server = Server(url, _checked_namespace(namespace), client_options)
        _check_options(server, client_options)
        open_namespace(server)

        def make_engine(publisher: Publisher) -> RedisEngine:
            self._redis = RedisEngine(server, timeout, seconds, kept, publisher)
            return self._redis

        super().__init__(event_manager, max_pending_events, 0, make_engine)
        # Other programs may have written the data: nothing is unpickled unless that codec is named.
        self.default_codec: Any = UnnamedCodec()
        self._redis.add_indexes(wanted)
        # A listener may have been connected before the store was made.
        self._redis.follow()

    def __repr__(self) -> str:
        server = self._redis.server
        return f"<RedisStore {server.tag.decode('utf-8', 'replace')} on {server.name}>"

    def close(self, timeout: Seconds | None = 30.0) -> None:
        super().close(timeout)
        self._redis.give_up()

    def _renew_in_child(self) -> None:
        super()._renew_in_child()
        self._redis.follow()

    @property
    def _indexes(self) -> SharedIndexes:
        return self._redis

    # -- caches -----------------------------------------------------------------------------------

    @property
    def _cache_traits(self) -> Traits:
        return Traits(self._redis.server_clock, "json", frozenset({"pickle"}), "write to the server")

    def _keep_within(self, limits: Limits) -> BoundedStore:
        """Return the bound that enforces the limits of a cache."""
        # Imported late: stores without a cache do not need it.
        from latchstore.redis.bounded_server import BoundedServer

        return BoundedServer(StoreAccess(self), self._redis, limits)

    # -- reading single keys ----------------------------------------------------------------------

    def to_bytes(self, key: str, buffer_size: int = DEFAULT_BUFFER_SIZE) -> bytes:
        engine = self._redis
        if not engine.routes and type(key) is str:
            data = engine.server.data(key.encode("utf-8", "surrogatepass"))
            if data is not None:
                return data
        return super().to_bytes(key)


def _checked_seconds(value: Any, argument: str) -> float:
    seconds = checked_timeout(value, argument)
    if seconds is None:
        raise TypeError(f"{argument} must be a number of seconds, got None")
    return seconds


def _check_options(server: Server, options: dict[str, Any]) -> None:
    """Raise TypeError for an option that neither the store nor redis-py has."""
    if not options:
        return
    try:
        server.connect()  # makes a connection that is never opened
    except TypeError as error:
        wrong = [name for name in options if repr(name) in str(error)]
        if not wrong:
            raise
        advice = alike(wrong[0], RedisStore.__init__.__kwdefaults__ or ())
        raise TypeError(
            f"RedisStore() has no parameter {wrong[0]!r}, nor has redis.Redis.from_url; {advice}"
        ) from None


def _checked_namespace(namespace: Any) -> str:
    if not isinstance(namespace, str):
        raise TypeError(f"namespace must be a str, got {describe(namespace)}")
    if not namespace or "{" in namespace or "}" in namespace:
        raise ValueError(f"namespace must be a non-empty string without braces, got {describe(namespace)}")
    return exact_string(namespace)
