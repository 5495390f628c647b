"""Sources: a file, a namespace of a server, or the store of a module, opened by name.

Thread safety: one thread uses a source.
"""

from __future__ import annotations

import errno
import heapq
import importlib
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from latchstore.cache.shared import Cache
from latchstore.contract.errors import StoreError, StoreFormatError
from latchstore.contract.file_locks import read_regular
from latchstore.contract.store import AbstractReadOnlyStore
from latchstore.delivery.event_manager import EventManager
from latchstore.engine.database_file import DamageError, Header
from latchstore.engine.memory import DictMemoryStore
from latchstore.engine.saving import APPLICATION
from latchstore.engine.transactional_store import TransactionalStore

#: The schemes of the URLs of servers.
SCHEMES = ("redis", "rediss", "unix")

#: The total size of all data, and the largest keys with their sizes.
Sizes = tuple[int, list[tuple[str, int]]]


class SourceError(Exception):
    """A source cannot be opened; the message has the reason, and a remedy."""


class Source(ABC):
    """A store that is being inspected.

    Attributes
    ----------
    kind, place : str
        The kind of store, and its place.
    store : AbstractReadOnlyStore
        The entries; of one instant if the store has snapshots.
    """

    kind: str
    place: str
    store: AbstractReadOnlyStore

    @property
    def is_outdated(self) -> bool:
        """Whether the data read is invalid, as it has been changed meanwhile."""
        return False

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return ``oldest`` (the first revision of the history, or None), ``indexes`` and ``caches``."""

    def sizes(self, most: int) -> Sizes:
        """Return the total length of the data of all keys, and the keys with the most data."""
        sizes = []
        for key in self.store.query_keys():
            with suppress(KeyError):  # deleted meanwhile, in a store without snapshots
                sizes.append((key, self.store.get(key).size))
        return sum(size for _, size in sizes), heapq.nlargest(most, sizes, key=lambda each: each[1])

    @abstractmethod
    def close(self) -> None:
        """Close everything that was opened."""


class SavedFile(Source):
    """A file written by ``DictMemoryStore.save``; all of it is read into memory.

    Parameters
    ----------
    path : str
    """

    kind = "file of DictMemoryStore.save"

    def __init__(self, path: str) -> None:
        self.place = path
        self.store: DictMemoryStore = DictMemoryStore.load(path)

    def facts(self) -> dict[str, Any]:
        return {"oldest": None, "indexes": [], "caches": []}

    def close(self) -> None:
        self.store.close()


class SharedFile(Source):
    """The file of a `SqliteStore`.

    Parameters
    ----------
    path : str
    """

    kind = "SqliteStore"

    def __init__(self, path: str) -> None:
        from latchstore.sqlite.read_only import ReadOnlyFile  # imported here, as others need extras

        self.place = path
        self._file = ReadOnlyFile(path)
        self.store = self._file.snapshot

    @property
    def is_outdated(self) -> bool:
        return self._file.is_outdated

    def facts(self) -> dict[str, Any]:
        return self._file.facts()

    def sizes(self, most: int) -> Sizes:
        return self._file.sizes(most)

    def close(self) -> None:
        self._file.close()


class Namespace(Source):
    """A namespace of a Redis or Valkey server.

    Parameters
    ----------
    url : str
    namespace : str
    """

    kind = "RedisStore"

    def __init__(self, url: str, namespace: str) -> None:
        from latchstore.redis.read_only import ReadOnlyNamespace

        self._namespace = ReadOnlyNamespace(url, namespace, {})
        self.place = f"{self._namespace.place}, namespace {namespace}"
        self.store = self._namespace.snapshot

    def facts(self) -> dict[str, Any]:
        return self._namespace.facts()

    def sizes(self, most: int) -> Sizes:
        return self._namespace.sizes(most)

    def close(self) -> None:
        self._namespace.close()


class Opened(Source):
    """A store of a module, at one instant if it has snapshots.

    Parameters
    ----------
    store : AbstractReadOnlyStore
    name : str
    cache : Cache, optional
        The module's cache on the store.
    """

    def __init__(self, store: AbstractReadOnlyStore, name: str, cache: Cache[Any] | None = None) -> None:
        self.kind = type(store).__name__
        self.place = name
        self._live, self._cache = store, cache
        self._snapshot = store.snapshot() if isinstance(store, TransactionalStore) else None
        self.store = store if self._snapshot is None else self._snapshot

    def facts(self) -> dict[str, Any]:
        caches = []
        if self._cache is not None:
            stats = self._cache.stats()
            caches.append({"prefix": "", "idle": None, **{name: stats[name] for name in _OF_CACHES}})
        indexes = self._live.info().get("indexes", [])
        return {"oldest": None, "indexes": list(indexes), "caches": caches}

    def close(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()


#: The statistics of a cache in an overview.
_OF_CACHES = ("entries", "bytes", "evictions")


# -- opening ------------------------------------------------------------------------------------------


def open_source(target: str, namespace: str | None = None) -> Source:
    """Open a store by name, read only.

    Parameters
    ----------
    target : str
        A file, the URL of a server, or ``module:store``.
    namespace : str, optional
        The namespace on the server; may be in the URL as ``?namespace=``.

    Raises
    ------
    SourceError
        If it cannot be opened; the message names it.
    """
    with _explained(target):
        if is_url(target):
            return Namespace(*_url_and_namespace(target, namespace))
        if (named := _named_store(target)) is not None:
            return Opened(*named)
        return SharedFile(target) if _has_log(target) else SavedFile(target)


class Live(NamedTuple):
    """A store to follow.

    Attributes
    ----------
    store : TransactionalStore
    caches : dict of str to Cache
        The known caches on it, by name.
    was_opened : bool
        Whether it was opened here, and must be closed here.
    """

    store: TransactionalStore
    caches: dict[str, Cache[Any]]
    was_opened: bool


def open_live(target: str, namespace: str | None = None) -> Live:
    """Open a store that others write to, to follow their commits.

    Raises
    ------
    SourceError
        As for `open_source`; also if no other program can write to it.
    """
    with _explained(target):
        if is_url(target):
            from latchstore.redis import RedisStore

            url, name = _url_and_namespace(target, namespace)
            Namespace(url, name).close()  # raises if it does not exist, so that none is made
            return Live(RedisStore(url, EventManager(), namespace=name), {}, True)
        if (named := _named_store(target)) is not None:
            store, _, cache = named
            if not isinstance(store, TransactionalStore):
                raise SourceError(f"{target} has no watches, got a {type(store).__name__}")
            return Live(store, {} if cache is None else {target: cache}, False)
        if not _has_log(target):
            raise SourceError(
                f"{target} was saved by a DictMemoryStore, so it does not change: use latchstore inspect; "
                "to watch a store in memory, use latchstore.top.serve(store) in its process"
            )
        from latchstore.sqlite import SqliteStore

        SharedFile(target).close()  # raises if it is not the file of a store, so that nothing is added to it
        return Live(SqliteStore(target, EventManager()), {}, True)


def is_url(target: str) -> bool:
    """Return whether a target is a server."""
    return target.partition("://")[0] in SCHEMES and "://" in target


def _url_and_namespace(url: str, namespace: str | None) -> tuple[str, str]:
    place, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    name = options.pop("namespace", None) if namespace is None else namespace
    if options:
        place = f"{place}?{urlencode(options)}"
    if not name:
        from latchstore.redis.read_only import namespaces_at

        found = ", ".join(map(repr, namespaces_at(place))) or "none"
        raise SourceError(f"{url}: name the store on the server with --namespace, one of: {found}")
    return place, name


def _named_store(target: str) -> tuple[AbstractReadOnlyStore, str, Cache[Any] | None] | None:
    """Return the store of ``module:store``, with its cache; None if the target is a file name."""
    module_name, colon, attribute = target.partition(":")
    if os.path.exists(target) or not (colon and _is_dotted(module_name) and _is_dotted(attribute)):
        return None
    if "" not in sys.path:
        sys.path.insert(0, "")  # like ``python -m``: import from the current directory as well
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
        if callable(found) and not isinstance(found, (AbstractReadOnlyStore, Cache)):
            found = found()
    except Exception as error:  # an import may raise any exception
        raise SourceError(f"{target} cannot be loaded: {error!r}") from error
    if isinstance(found, Cache):
        return found.store, target, found
    if not isinstance(found, AbstractReadOnlyStore):
        raise SourceError(f"{target} is not a store or a cache, got a {type(found).__qualname__}")
    return found, target, None


def _is_dotted(name: str) -> bool:
    return bool(name) and all(part.isidentifier() for part in name.split("."))


def _has_log(path: str) -> bool:
    """Return whether a file is that of a `SqliteStore`; otherwise a store in memory has saved it.

    Raises
    ------
    StoreFormatError
        If it is neither.
    """
    try:
        header = Header(read_regular(path, 100), os.stat(path).st_size)
    except DamageError as error:
        if read_regular(path, 16) == b"SQLite format 3\0":
            return True  # SQLite and the check of tables raise more precise errors
        raise StoreFormatError(f"{path!r} is not the file of a store: {error}") from None
    if header.application != APPLICATION:
        raise StoreFormatError(f"{path!r} is a SQLite database of another program")
    return header.has_log


class _explained:  # noqa: N801 (read as a word of the statement)
    """Raises SourceError for errors of the target, but not for those of this program."""

    def __init__(self, target: str) -> None:
        self._target = target

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (OSError, StoreError, ImportError, ValueError)):
            raise SourceError(explanation(error, self._target)) from error


def explanation(error: Exception, target: str) -> str:
    """Return the explanation of an error for a user, on one line."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        reason = error.strerror
        if error.errno == errno.ENOENT:
            reason = "there is no such file"
        return f"{target}: {reason}"
    return " ".join(str(error).split())
