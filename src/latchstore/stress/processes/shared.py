"""Stores that several processes share: how the harness makes, opens and removes them.

Thread safety: the functions have no state; any thread may call a `PrivateStores`.
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
    """What a store under test provides so that several processes can use it: a class or an object.

    The object is sent to each process by pickle, and so is the result of `create`.
    """

    def create(self, directory: str) -> Any:
        """Make a new, empty store, which no process has opened yet; return its location.

        Parameters
        ----------
        directory : str
            An empty directory for it, which the harness removes at the end.
        """

    def attach(self, where: Any, event_manager: Any = None, **options: Any) -> AbstractStore:
        """Open the store; called once in each process.

        Parameters
        ----------
        where : object
            The result of `create`.
        event_manager : EventManager
            One of the process's own. Stores without events may omit it from the signature.
        **options
            Options of workloads and faults, such as ``history``; raise TypeError for an unknown one.
        """

    def destroy(self, where: Any) -> None:
        """Remove all that is left outside the directory when all processes have ended."""


def is_shared(subject: object) -> TypeGuard[SharedStores]:
    """Return whether an object has the three methods."""
    return all(callable(getattr(subject, name, None)) for name in ("create", "attach", "destroy"))


class FileStores:
    """Stores that any process opens by the path of a file: `SqliteStore` and subclasses.

    Parameters
    ----------
    make : callable
        Called with a path, an event manager and options; returns a store.
    """

    def __init__(self, make: Callable[..., AbstractStore]) -> None:
        self.make = make
        # `Scope` finds the code under test by this attribute.
        self.__wrapped__: Any = make

    def create(self, directory: str) -> str:
        """Return the path; the first process makes the file."""
        return os.path.join(directory, "store")

    def attach(self, where: str, event_manager: Any = None, **options: Any) -> AbstractStore:
        """Open the file."""
        return self.make(where, event_manager, **options)

    def destroy(self, where: str) -> None:
        """Do nothing: everything is in the directory."""


class PrivateStores:
    """Makes stores of a shared kind for one process, each in a directory of its own.

    Parameters
    ----------
    stores : SharedStores

    Attributes
    ----------
    stores : SharedStores
    """

    def __init__(self, stores: SharedStores) -> None:
        self.stores = stores
        self.__wrapped__: Any = getattr(stores, "__wrapped__", stores)

    def __call__(self, **options: Any) -> AbstractStore:
        """Make a store; its directory is removed when it is collected, or at exit."""
        directory, where = created(self.stores)
        store = attached(self.stores, where, options)
        weakref.finalize(store, _remove, self.stores, where, directory, os.getpid())
        return store


def created(stores: SharedStores) -> tuple[str, Any]:
    """Make a directory with a store inside; return the directory and the location."""
    directory = tempfile.mkdtemp(prefix="latchstore-stress-")
    below = os.path.join(directory, "store")
    try:
        os.mkdir(below)
        return directory, stores.create(below)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def attached(stores: SharedStores, where: Any, options: dict[str, Any]) -> AbstractStore:
    """Open a store in this process, with its own event manager if it accepts one."""
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
    if os.getpid() == process:  # not in a forked child
        destroyed(stores, where, directory)


def takes_event_manager(function: Callable[..., object]) -> bool:
    """Return whether a function accepts an event manager."""
    return "event_manager" in parameters_of(function)


def parameters_of(function: Callable[..., object]) -> Collection[str]:
    """Return the names of the parameters of a function."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()  # may be written in C
