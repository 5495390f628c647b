"""Stores on a server of their own, for the harness over processes: with all replies, or through a proxy.

Thread safety: `create` and `destroy` are called by the parent's main thread; the rest keeps nothing.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, NamedTuple

from latchstore import RedisStore
from tests.redis.proxy import Proxy, share
from tests.redis.servers import Server, preferred

#: What `create` has started in this process, until `destroy`.
_RUNNING: dict[str, ExitStack] = {}


class Where(NamedTuple):
    """Where a store is.

    Attributes
    ----------
    url : str
        Of the server.
    through : str
        Of what other processes than the parent reach it by.
    parent : int
        The process of the parent.
    """

    url: str
    through: str
    parent: int


class ServerStores:
    """`SharedStores` of which each has a server.

    Parameters
    ----------
    lost : float
        The share of all replies that is lost between the server and the processes which use the store. Those
        to the parent come: it has to prepare the store and to look at what has become of it.
    """

    def __init__(self, lost: float = 0.0) -> None:
        self._lost = lost
        # What the harness looks for the code under test by.
        self.__wrapped__ = RedisStore

    def create(self, directory: str) -> Where:
        with ExitStack() as stack:
            server = stack.enter_context(Server(preferred()))
            through = server.url
            if self._lost:
                through = stack.enter_context(Proxy(server.socket, share(self._lost, seed=26))).url
            _RUNNING[server.url] = stack.pop_all()
        return Where(server.url, through, os.getpid())

    def attach(self, where: Where, event_manager: Any = None, **options: Any) -> RedisStore:
        url = where.url if os.getpid() == where.parent else where.through
        return RedisStore(url, event_manager, namespace="stress", **options)

    def destroy(self, where: Where) -> None:
        _RUNNING.pop(where.url).close()


whole = ServerStores()
with_lost_replies = ServerStores(lost=0.01)
