"""What makes the stores of a run: a class or a function, found by its name.

Thread safety: used by one thread.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from latchstore.contract.store import AbstractStore
from latchstore.delivery.event_manager import EventManager
from latchstore.stress.faults import Fault

Factory = Callable[..., AbstractStore]


class PlanError(ValueError):
    """A run was ordered that cannot be; one line says why."""


def store_factory(name: str) -> Factory:
    """Return what makes a store that is named as ``"module:Class"``.

    Raises
    ------
    PlanError
        If there is no such thing, or it makes no store.
    """
    factory = named_object(name, "store")
    return factory_of(factory, name)


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
    """Return what makes stores by a class or a function, whose name is for messages."""
    if not callable(factory):
        raise PlanError(f"store {name!r} is not callable, got {type(factory).__qualname__}")
    return _Factory(factory, name)


class _Factory:
    """Makes stores; each has an event manager of its own if it takes one."""

    def __init__(self, factory: Callable[..., object], name: str) -> None:
        self._factory = factory
        self._name = name
        # What Scope looks for the code under test by.
        self.__wrapped__ = factory
        self._takes_event_manager = "event_manager" in _parameters(factory)

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


def _parameters(factory: Callable[..., object]) -> Collection[str]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return ()  # written in C, perhaps


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
