"""What makes the stores of a run: a class, a function, or what several processes share; found by its name.

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

#: What stands for `SqliteStore`, in a file of the harness's own.
SQLITE = "sqlite"

_SQLITE_STORE = "latchstore:SqliteStore"

Factory = Callable[..., AbstractStore]


class PlanError(ValueError):
    """A run was ordered that cannot be; one line says why."""


def store_factory(name: str) -> Factory:
    """Return what makes a store that is named as ``"module:Class"``, or ``"sqlite"``.

    Raises
    ------
    PlanError
        If there is no such thing, or it makes no store.
    """
    factory = named_object(_SQLITE_STORE if name == SQLITE else name, "store")
    return factory_of(factory, name)


def shared_stores(factory: Factory, name: str) -> SharedStores:
    """Return how several processes use what a factory makes.

    Raises
    ------
    PlanError
        If nothing says how.
    """
    if isinstance(factory, PrivateStores):
        try:
            pickle.dumps(factory.stores)
        except Exception as error:  # whatever its class raises
            raise PlanError(f"store {name!r} cannot be sent to other processes: {error!r}") from error
        return factory.stores
    raise PlanError(
        f"store {name!r} cannot be used by several processes: it needs create, attach and destroy, see "
        "docs/how-to/stress-over-processes.md"
    )


def named_object(name: str, what: str) -> Any:
    """Return what is named as ``"module:Class"``.

    Raises
    ------
    PlanError
        If there is no such thing; `what` says what it is.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise PlanError(f"{what} must be named as module:Class, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as ``python -m`` does: a module in the current directory is found
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
    """Return what makes stores by a class, a function or `SharedStores`, whose name is for messages."""
    if is_shared(factory):
        return PrivateStores(factory)
    if _is_sqlite(factory):
        return PrivateStores(FileStores(factory))
    if not callable(factory):
        raise PlanError(f"store {name!r} is not callable, got {type(factory).__qualname__}")
    return _Factory(factory, name)


def _is_sqlite(factory: object) -> TypeGuard[type[AbstractStore]]:
    """Tell whether something is `SqliteStore` or derives from it, without loading SQLite for others."""
    return isinstance(factory, type) and any(
        each.__name__ == "SqliteStore" and each.__module__.startswith("latchstore.")
        for each in factory.__mro__
    )


class _Factory:
    """Makes stores; each has an event manager of its own if it takes one."""

    def __init__(self, factory: Callable[..., object], name: str) -> None:
        self._factory = factory
        self._name = name
        # What Scope looks for the code under test by.
        self.__wrapped__ = factory
        self._takes_event_manager = takes_event_manager(factory)

    def __call__(self, **options: object) -> AbstractStore:
        if self._takes_event_manager:
            # One of its own, or stores of a run would share listeners by that of the process.
            options["event_manager"] = EventManager()
        store = self._factory(**options)
        if not isinstance(store, AbstractStore):
            raise PlanError(
                f"store {self._name!r} must make an AbstractStore, got {type(store).__module__}."
                f"{type(store).__qualname__}"
            )
        return store


def checked_factory(factory: Factory, faults: Sequence[type[Fault]]) -> None:
    """Raise PlanError if no store can be made, or not with the options that the faults need."""
    for options in ({}, *(dict(fault.options) for fault in faults)):
        try:
            store = factory(**options)
        except PlanError:
            raise
        except Exception as error:
            given = f" with {options}" if options else ""
            raise PlanError(f"no store can be made{given}: {error!r}") from error
        store.close()
