"""Stores that several processes use: how the harness makes, opens and removes them.

Thread safety: the functions keep nothing; a `PrivateStores` may be called by any thread.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection
from typing import Any, Protocol, TypeGuard

from latchstore.contract.store import AbstractStore
from latchstore.delivery.event_manager import EventManager


class SharedStores(Protocol):
    """What a store under test offers so that several processes can use it: a class, or an object of one.

    The object goes to each process by pickle, as what `create` returns does.
    """

    def create(self, directory: str) -> Any:
        """Make a new, empty store, which no process has opened yet; return where it is.

        Parameters
        ----------
        directory : str
            An empty directory for it, which the harness removes in the end.
        """

    def attach(self, where: Any, event_manager: Any = None, **options: Any) -> AbstractStore:
        """Open the store; called once in each process.

        Parameters
        ----------
        where : object
            What `create` has returned.
        event_manager : EventManager
            One of its own. It may be left out of the signature by stores without events.
        **options
            What workloads and faults ask for, such as ``history``; a TypeError tells that one is not known.
        """

    def destroy(self, where: Any) -> None:
        """Remove what is left when all processes have ended, beside the directory."""


def is_shared(subject: object) -> TypeGuard[SharedStores]:
    """Tell whether something has the three methods."""
    return all(callable(getattr(subject, name, None)) for name in ("create", "attach", "destroy"))


class FileStores:
    """Stores that are made with the path of a file, by any process: `SqliteStore` and what derives from it.

    Parameters
    ----------
    make : callable
        Given a path, an event manager and options, returns a store.
    """

    def __init__(self, make: Callable[..., AbstractStore]) -> None:
        self.make = make
        # What `Scope` looks for the code under test by.
        self.__wrapped__: Any = make

    def create(self, directory: str) -> str:
        """Return the path; the first process makes the file."""
        return os.path.join(directory, "store")

    def attach(self, where: str, event_manager: Any = None, **options: Any) -> AbstractStore:
        """Open the file."""
        return self.make(where, event_manager, **options)

    def destroy(self, where: str) -> None:
        """Nothing is left beside the directory."""


class PrivateStores:
    """Makes stores of a shared kind, each in a directory of its own, for one process alone.

    Parameters
    ----------
    stores : SharedStores

    Attributes
    ----------
    stores : SharedStores
    """

    def __init__(self, stores: SharedStores) -> None:
        self.stores = stores
        self.__wrapped__ = getattr(stores, "__wrapped__", stores)

    def __call__(self, **options: Any) -> AbstractStore:
        """Make a store; what it is in is removed when it is collected, or at exit."""
        directory, where = created(self.stores)
        store = attached(self.stores, where, options)
        weakref.finalize(store, _remove, self.stores, where, directory, os.getpid())
        return store


def created(stores: SharedStores) -> tuple[str, Any]:
    """Make a directory with a store in one below it; return both."""
    directory = tempfile.mkdtemp(prefix="latchstore-stress-")
    below = os.path.join(directory, "store")
    try:
        os.mkdir(below)
        return directory, stores.create(below)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def attached(stores: SharedStores, where: Any, options: dict[str, Any]) -> AbstractStore:
    """Open a store in this process, with an event manager of its own if it takes one."""
    if takes_event_manager(stores.attach):
        options = {**options, "event_manager": EventManager()}
    return stores.attach(where, **options)


def destroyed(stores: SharedStores, where: Any, directory: str) -> None:
    """Remove a store and its directory."""
    try:
        stores.destroy(where)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove(stores: SharedStores, where: Any, directory: str, process: int) -> None:
    if os.getpid() == process:  # not in a child that was forked
        destroyed(stores, where, directory)


def takes_event_manager(function: Callable[..., object]) -> bool:
    """Tell whether a function takes an event manager."""
    return "event_manager" in parameters_of(function)


def parameters_of(function: Callable[..., object]) -> Collection[str]:
    """Return the names of the parameters of a function."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()  # written in C, perhaps
