"""Putting other objects in the place of the standard library's, for a time.

Thread safety: one substitution at a time in a process.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any


@contextmanager
def substituted(
    modules: Iterable[ModuleType],
    replacements: Iterable[tuple[object, object]],
    patches: Iterable[tuple[Any, str, object]] = (),
) -> Iterator[None]:
    """Replace objects wherever modules have names for them.

    Parameters
    ----------
    modules : iterable of module
        Those under test. ``threading``, ``queue`` and ``time`` come on top.
    replacements : iterable of pairs
        Originals, and what is put in their place: names of modules, and defaults of the parameters of their
        classes, such as ``lock_factory``.
    patches : iterable of triples
        An object, the name of an attribute of it, and the new value of that.
    """
    undo: list[Callable[[], None]] = []

    def put(target: Any, name: str, new: object) -> None:
        old = getattr(target, name)
        undo.append(lambda: setattr(target, name, old))
        setattr(target, name, new)

    by_identity = {id(original): (original, new) for original, new in replacements}
    try:
        for module in {threading, queue, time, *modules}:
            for name, value in list(vars(module).items()):
                if id(value) in by_identity:
                    put(module, name, by_identity[id(value)][1])
                elif isinstance(value, type) and value.__module__ == module.__name__:
                    _put_defaults(value, by_identity, put)
        for target, name, new in patches:
            put(target, name, new)
        yield
    finally:
        for step in reversed(undo):
            step()


def _put_defaults(
    cls: type, by_identity: dict[int, tuple[object, object]], put: Callable[[Any, str, object], None]
) -> None:
    initialise = vars(cls).get("__init__")
    if not isinstance(initialise, FunctionType):
        return
    if initialise.__defaults__:
        defaults = tuple(by_identity.get(id(value), (None, value))[1] for value in initialise.__defaults__)
        if defaults != initialise.__defaults__:
            put(initialise, "__defaults__", defaults)
    if initialise.__kwdefaults__:
        named = {
            name: by_identity.get(id(value), (None, value))[1]
            for name, value in initialise.__kwdefaults__.items()
        }
        if named != initialise.__kwdefaults__:
            put(initialise, "__kwdefaults__", named)
