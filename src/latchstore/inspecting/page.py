"""A page that is being served: a collector and a server as one object. ``latchstore.top`` is the public API.

Thread safety: threads of the page serve it; they read the store as any thread may.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from latchstore.cache.shared import Cache
from latchstore.contract.arguments import checked_timeout, describe
from latchstore.engine.transactional_store import TransactionalStore
from latchstore.inspecting.collector import Collector
from latchstore.inspecting.server import TopServer

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds


class Page:
    """A page that is being served; ``serve`` makes it. The end of its ``with`` block closes it.

    Attributes
    ----------
    url : str
        Its address.

    Thread safety
    -------------
    Any thread may close a page. Threads of the page serve it.
    """

    def __init__(self, collector: Collector, server: TopServer) -> None:
        self._collector = collector
        self._server = server
        self.url: str = server.url

    def close(self) -> None:
        """Stop serving the page; closing twice is harmless. The store stays open."""
        self._collector.close()
        self._server.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._collector.ended else "open"
        return f"<{state} page at {self.url}>"


def serve(
    store: TransactionalStore | Cache[Any],
    port: int = 0,
    *,
    caches: Mapping[str, Cache[Any]] | None = None,
    interval: Seconds = 1.0,
) -> Page:
    """Serve a page that shows a store: changes as they are committed, statistics, transactions, listeners.

    It can be read on this machine only (127.0.0.1), by all of its users, and shows keys and metadata. It
    changes nothing.

    Parameters
    ----------
    store : DictMemoryStore, SqliteStore, RedisStore or Cache
        For a cache, its store is shown, and its statistics.
    port : int
        Port number; 0 for any free one, which `Page.url` has.
    caches : mapping of str to Cache, optional
        Caches whose statistics are shown, by the names to show.
    interval : Seconds
        Time between two reads of the store's activity, while a browser has the page open.

    Returns
    -------
    page : Page

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.
    OSError
        If the port is in use.

    Notes
    -----
    The page has a watch of the store, with a buffer of 100 changes: commits while it is full are shown as a
    gap. The watch counts in ``stats()``.

    Examples
    --------
    >>> from latchstore import DictMemoryStore, EventManager
    >>> from latchstore import top
    >>> store = DictMemoryStore(EventManager())
    >>> with top.serve(store) as page:
    ...     page.url.startswith("http://127.0.0.1:")
    True
    """
    shown = dict(caches or {})
    if isinstance(store, Cache):
        shown.setdefault("cache", store)
        store = store.store  # type: ignore[assignment]
    if not isinstance(store, TransactionalStore):
        raise TypeError(
            f"store must be a DictMemoryStore, a SqliteStore, a RedisStore or a Cache, got {describe(store)}"
        )
    for name, cache in shown.items():
        if not isinstance(name, str) or not isinstance(cache, Cache):
            raise TypeError(
                f"caches must be a mapping of str to Cache, got {describe(name)}: {describe(cache)}"
            )
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"port must be an int, got {describe(port)}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    seconds = checked_timeout(interval, "interval")
    if not seconds:
        raise ValueError("interval must be more than 0 seconds")
    collector = Collector(store, shown, seconds)
    try:
        server = TopServer(port, collector)
    except BaseException:
        collector.close()
        raise
    return Page(collector, server)
