"""Finds the factory of a run's stores by name: a class, a function, or `SharedStores` for several processes.

Thread safety: used by one thread.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from latchstore.contract.store import AbstractStore
from latchstore.delivery.event_manager import EventManager
from latchstore.stress.faults import Fault
from latchstore.stress.processes.shared import (
    FileStores,
    PrivateStores,
    SharedStores,
    is_shared,
    takes_event_manager,
)

#: The name for `SqliteStore` in a temporary file.
SQLITE = "sqlite"

_SQLITE_STORE = "latchstore:SqliteStore"

Factory = Callable[..., AbstractStore]


class PlanError(ValueError):
    """A run cannot be made as planned; the message has one line."""


def store_factory(name: str) -> Factory:
    """Return the factory named as ``"module:Class"`` or ``"sqlite"``.

    Raises
    ------
    PlanError
        If it does not exist, or does not make a store.
    """
    factory = named_object(_SQLITE_STORE if name == SQLITE else name, "store")
    return factory_of(factory, name)


def shared_stores(factory: Factory, name: str) -> SharedStores:
    """Return how several processes use the stores of a factory.

    Raises
    ------
    PlanError
        If the factory does not define that.
    """
    if isinstance(factory, PrivateStores):
        try:
            pickle.dumps(factory.stores)
        except Exception as error:  # pickling may raise any exception
            raise PlanError(f"store {name!r} cannot be sent to other processes: {error!r}") from error
        return factory.stores
    raise PlanError(
        f"store {name!r} cannot be used by several processes: it needs create, attach and destroy, see "
        "docs/how-to/stress-over-processes.md"
    )


def named_object(name: str, what: str) -> Any:
    """Return the object named as ``"module:Class"``.

    Raises
    ------
    PlanError
        If there is none; `what` is its description for the message.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise PlanError(f"{what} must be named as module:Class, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # like ``python -m``: import from the current directory as well
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise PlanError(f"{what} {name!r}: cannot import {module_name!r}: {error}") from error
    except AttributeError as error:
        raise PlanError(f"{what} {name!r}: module {module_name!r} has no {attribute!r}") from error
    return found


def factory_of(factory: object, name: str) -> Factory:
    """Return a checked factory, from a class, a function or `SharedStores`; the name is for messages."""
    if is_shared(factory):
        return PrivateStores(factory)
    if _is_sqlite(factory):
        return PrivateStores(FileStores(factory))
    if not callable(factory):
        raise PlanError(f"store {name!r} is not callable, got {type(factory).__qualname__}")
    return _Factory(factory, name)


def _is_sqlite(factory: object) -> TypeGuard[type[AbstractStore]]:
    """Return whether a class is `SqliteStore` or derived from it, without importing SQLite for others."""
    return isinstance(factory, type) and any(
        each.__name__ == "SqliteStore" and each.__module__.startswith("latchstore.")
        for each in factory.__mro__
    )


class _Factory:
    """Makes stores, each with its own event manager if it accepts one."""

    def __init__(self, factory: Callable[..., object], name: str) -> None:
        self._factory = factory
        self._name = name
        # Scope finds the code under test by this attribute.
        self.__wrapped__ = factory
        self._takes_event_manager = takes_event_manager(factory)

    def __call__(self, **options: object) -> AbstractStore:
        if self._takes_event_manager:
            # Its own one, as stores with that of the process would share listeners.
            options["event_manager"] = EventManager()
        store = self._factory(**options)
        if not isinstance(store, AbstractStore):
            raise PlanError(
                f"store {self._name!r} must return an AbstractStore, got {type(store).__module__}."
                f"{type(store).__qualname__}"
            )
        return store


def checked_factory(factory: Factory, faults: Sequence[type[Fault]]) -> None:
    """Raise PlanError if no store can be made, with the options of the faults and without."""
    for options in ({}, *(dict(fault.options) for fault in faults)):
        try:
            store = factory(**options)
        except PlanError:
            raise
        except Exception as error:
            given = f" with {options}" if options else ""
            raise PlanError(f"no store can be made{given}: {error!r}") from error
        store.close()
