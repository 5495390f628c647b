"""Replaces objects of the standard library for a time.

Objects are found by identity, so the name under which a module imported them does not matter.

Thread safety: one substitution at a time in a process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, ModuleType
from typing import Any

#: Modules that are never changed: the interpreter's own, and the harness.
_LEFT_ALONE = ("_thread", "builtins", "importlib.", "_frozen_importlib", "latchstore.stress.")

#: For each set of originals, by module name: its number of names, and the names that refer to originals.
_names: dict[frozenset[int], dict[str, tuple[int, tuple[str, ...]]]] = {}


class Substitution:
    """A set of replacements, made when entered and undone at the end.

    Parameters
    ----------
    replacements : iterable of pairs
        Originals with their replacements, for all global names of modules.
    """

    def __init__(self, replacements: Iterable[tuple[object, object]]) -> None:
        pairs = tuple(replacements)
        self._forward = {id(original): (original, new) for original, new in pairs}
        self._backward = {id(new): (new, original) for original, new in pairs}
        self._names = _names.setdefault(frozenset(self._forward), {})
        self._undo: list[Callable[[], None]] = []
        self._seen: set[str] = set()

    def put(self, target: Any, name: str, new: object) -> None:
        """Set an attribute until the end."""
        old = getattr(target, name)
        self._undo.append(lambda: setattr(target, name, old))
        setattr(target, name, new)

    def later(self, step: Callable[[], None]) -> None:
        """Register a function to call at the end."""
        self._undo.append(step)

    def replace_in(self, modules: Iterable[ModuleType]) -> None:
        """Replace global names of modules."""
        for module in modules:
            if not module.__name__.startswith(_LEFT_ALONE):
                for name in self._names_in(module):
                    found = self._forward.get(id(vars(module).get(name)))
                    if found is not None:
                        self.put(module, name, found[1])

    def _names_in(self, module: ModuleType) -> tuple[str, ...]:
        """Return a module's global names for originals; searched again if its number of names changed."""
        names = vars(module)
        # hot path: a process has a thousand modules, and few of them refer to any.
        size, found = self._names.get(module.__name__, (-1, ()))
        if size != len(names):
            found = tuple(
                name
                for name, value in list(names.items())
                if id(value) in self._forward and not (name == "_CRLock" and module.__name__ == "threading")
            )
            self._names[module.__name__] = len(names), found
        return found

    def replace_within(self, modules: Iterable[ModuleType]) -> None:
        """Replace originals in attributes of classes and in defaults of functions."""
        for module in modules:
            for value in list(vars(module).values()):
                if getattr(value, "__module__", None) != module.__name__:
                    continue
                if isinstance(value, FunctionType):
                    self._replace_in_function(value)
                elif isinstance(value, type):
                    self._replace_in_class(value)

    def _replace_in_class(self, cls: type) -> None:
        for name, value in list(vars(cls).items()):
            inner = getattr(value, "__func__", value)
            if id(inner) in self._forward:
                new = self._forward[id(inner)][1]
                # A Python function is bound as a method; the C function was not.
                self.put_raw(cls, name, staticmethod(new) if isinstance(new, FunctionType) else new)
            elif isinstance(inner, FunctionType):
                self._replace_in_function(inner)

    def put_raw(self, cls: type, name: str, new: object) -> None:
        """Set an attribute of a class until the end, without binding."""
        old = vars(cls)[name]
        self._undo.append(lambda: setattr(cls, name, old))
        setattr(cls, name, new)

    def _replace_in_function(self, function: FunctionType) -> None:
        """Replace defaults of parameters, and default factories of dataclasses, which are in cells."""
        if function.__defaults__:
            defaults = tuple(self._new(value) for value in function.__defaults__)
            if defaults != function.__defaults__:
                self.put(function, "__defaults__", defaults)
        if function.__kwdefaults__:
            named = {name: self._new(value) for name, value in function.__kwdefaults__.items()}
            if named != function.__kwdefaults__:
                self.put(function, "__kwdefaults__", named)
        for cell in function.__closure__ or ():
            new = self._forward.get(id(_content(cell)))
            if new is not None:
                self.put(cell, "cell_contents", new[1])

    def _new(self, value: object) -> object:
        found = self._forward.get(id(value))
        return value if found is None else found[1]

    def note_loaded(self) -> None:
        """Record the imported modules; `put_back_in` finds those imported later."""
        self._seen = set(sys.modules)

    def newly_loaded(self) -> list[ModuleType]:
        """Return the modules imported since, which have imported replacements."""
        return [sys.modules[name] for name in set(sys.modules) - self._seen if sys.modules[name] is not None]

    def end(self) -> None:
        """Restore everything."""
        for module in self.newly_loaded():
            for name, value in list(vars(module).items()):
                found = self._backward.get(id(value))
                if found is not None:
                    setattr(module, name, found[1])
        for step in reversed(self._undo):
            step()


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # empty


def loaded() -> list[ModuleType]:
    """Return all modules of the process, except those of the harness."""
    return [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]


@contextmanager
def substituted(
    modules: Iterable[ModuleType],
    replacements: Iterable[tuple[object, object]],
    patches: Iterable[tuple[Any, str, object]] = (),
    everywhere: bool = False,
) -> Iterator[Substitution]:
    """Replace objects wherever modules refer to them.

    Parameters
    ----------
    modules : iterable of module
        The modules under test.
    replacements : iterable of pairs
        Originals with their replacements: for names of modules, attributes of their classes, and defaults of
        their functions' parameters, such as ``lock_factory``.
    patches : iterable of triples
        An object, the name of one of its attributes, and the new value.
    everywhere : bool
        Whether to replace names in all imported modules, not only in those under test and in ``threading``,
        ``queue`` and ``time``.
    """
    change = Substitution(replacements)
    under_test = list(modules)
    standard = [sys.modules[name] for name in ("threading", "queue", "time") if name in sys.modules]
    try:
        change.replace_in(loaded() if everywhere else {*standard, *under_test})
        change.replace_within(under_test)
        for target, name, new in patches:
            change.put(target, name, new)
        change.note_loaded()
        yield change
    finally:
        change.end()
