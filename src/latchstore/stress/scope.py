"""Determines the code under test: where threads may switch, and whose locks become cooperative.

Thread safety: only caches change, by single operations of a dict.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from latchstore.programs import PROGRAMS

_PACKAGE = Path(__file__).parent.parent

#: Parts of this package that are not the store, and functions that the scheduler itself calls.
_NOT_UNDER_TEST = (
    *(str(_PACKAGE / name) for name in PROGRAMS),
    str(_PACKAGE / "contract" / "frames.py"),
)

#: Modules of the standard library that never become code under test by inheritance: threads do not switch in
#: them, or the harness itself uses them.
_NEVER_INHERITED = frozenset(
    {
        "abc",
        "builtins",
        "contextlib",
        "dataclasses",
        "enum",
        "threading",
        "typing",
        "_thread",
        "unittest.case",
    }
)

#: The file name of code that was made from a string.
_GENERATED = "<string>"

_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} - {None, ""}
)


class Scope:
    """The files of the code under test.

    By default these are the top-level packages of the subjects: of the module of a function, and
    of the modules of a class and its base classes. A subject whose module is not in a package adds the
    modules of the same folder, except for the standard library and ``site-packages``. One that was entered
    in a REPL adds all functions and classes that were.

    Parameters
    ----------
    *subjects : object
        Classes, functions, or objects, which stand for their classes.
    modules : iterable of str
        Names of modules and packages to use instead.

    Raises
    ------
    ImportError
        If one of `modules` cannot be imported.
    """

    def __init__(self, *subjects: object, modules: Iterable[str] = ()) -> None:
        self._trees: tuple[str, ...] = ()
        self._files: set[str] = set()
        self._directories: set[str] = set()
        # Code of the subjects whose file name is that of much other code.
        self._generated: set[CodeType] = set()
        self._known: dict[CodeType, bool] = {}
        named = [importlib.import_module(name) for name in modules]
        for module in named:
            self._add_module(module)
        self._named = bool(named)
        for subject in subjects:
            self.add(subject)

    def add(self, subject: object) -> None:
        """Add the packages of a class, a function or an object, unless modules were named."""
        if self._named:
            return
        subject = inspect.unwrap(subject) if callable(subject) else subject
        classes = subject.__mro__ if isinstance(subject, type) else type(subject).__mro__
        for cls in () if isinstance(subject, FunctionType) else classes:
            if cls is subject or cls.__module__ not in _NEVER_INHERITED:
                self._add_package(sys.modules.get(cls.__module__))
        self._add_package(inspect.getmodule(subject))
        self._known.clear()

    def add_parts(self, subject: object) -> None:
        """Add also the packages of a decorator, and of properties of others in a class."""
        if self._named:
            return
        for each in functions_of(subject):
            self._add_code(each)
        if not isinstance(subject, FunctionType | MethodType):
            for cls in type(subject).__mro__:
                if cls.__module__ not in _NEVER_INHERITED:
                    self._add_package(sys.modules.get(cls.__module__))
                    self._add_descriptors(cls)
        self._known.clear()

    def _add_descriptors(self, cls: type) -> None:
        """Add the packages of properties of others, such as a cached one with a lock."""
        for value in vars(cls).values():
            kind = type(value)
            module = sys.modules.get(kind.__module__)
            if hasattr(kind, "__get__") and module is not None and not is_of_standard_library(module):
                self._add_package(module)

    def _add_code(self, function: FunctionType) -> None:
        """Add the package of a function's code: of a wrapper, `__module__` is that of what it wraps."""
        module = inspect.getmodule(function.__code__) or sys.modules.get(function.__module__)
        if module is not None and module.__name__ not in _NEVER_INHERITED:
            self._add_package(module)

    def _add_package(self, module: ModuleType | None) -> None:
        if module is None:
            return
        package = sys.modules.get(module.__name__.partition(".")[0], module)
        if is_of_standard_library(package):
            self._add_module(module)  # its file only
        elif getattr(package, "__path__", None):
            self._add_module(package)
        else:
            file = getattr(module, "__file__", None)
            directory = os.path.dirname(file) if file else ""
            if directory and not directory.startswith(_LIBRARIES):
                self._directories.add(directory)
            if not file:
                self._add_entered(module)
            self._add_module(module)

    def _add_entered(self, module: ModuleType) -> None:
        """Add the code of a module without a file: each input of a REPL may have a name of its own."""
        for value in list(vars(module).values()):
            if getattr(value, "__module__", None) == module.__name__:
                functions = map(_function_of, vars(value).values()) if isinstance(value, type) else [value]
                codes = [each.__code__ for each in functions if isinstance(each, FunctionType)]
                # The code of ``-c``, and that of every dataclass and named tuple: ours must not be traced.
                self._generated.update(each for each in _nested(codes) if each.co_filename == _GENERATED)
                self._files |= {each.co_filename for each in codes} - {_GENERATED}

    def _add_module(self, module: ModuleType) -> None:
        path = getattr(module, "__path__", None)
        if path:
            self._trees = tuple({*self._trees, *(os.path.join(each, "") for each in path)})
        file = getattr(module, "__file__", None)
        if file and not path:
            # The code of a module that is frozen into the interpreter has no file name.
            self._files |= {file, f"<frozen {module.__name__}>"}

    def __contains__(self, file: str) -> bool:
        if file.startswith(_NOT_UNDER_TEST):
            return False
        return (
            file in self._files or file.startswith(self._trees) or os.path.dirname(file) in self._directories
        )

    def traced(self, code: CodeType) -> bool:
        """Return whether threads may switch inside a code object."""
        known = self._known.get(code)
        if known is None:
            known = code.co_filename in self or (bool(self._generated) and code in self._generated)
            self._known[code] = known
        return known

    def modules(self) -> Iterator[ModuleType]:
        """Return the imported modules under test, and those of readerwriterlock, which make locks."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and (file in self or name.startswith("readerwriterlock")):
                yield module

    def switched_within(self) -> tuple[str, ...]:
        """Return the names of the modules in whose code controlled threads were so far."""
        files = {code.co_filename for code, traced in list(self._known.items()) if traced}
        names = {getattr(module, "__file__", None): module.__name__ for module in self.modules()}
        return tuple(sorted(names.get(file, file) for file in files))

    def has_python(self, subject: type) -> bool:
        """Return whether a class has a method in Python in the code under test."""
        functions = (_function_of(value) for cls in subject.__mro__ for value in vars(cls).values())
        return any(each is not None and self.traced(each.__code__) for each in functions)


def functions_of(subject: Any) -> Iterator[FunctionType]:
    """Yield the functions that a callable consists of: itself, and those that it wraps; none of a class."""
    seen: set[int] = set()
    while callable(subject) and not isinstance(subject, type) and id(subject) not in seen:
        seen.add(id(subject))
        if isinstance(subject, FunctionType):
            yield subject
        if isinstance(subject, functools.partial):
            subject = subject.func
        else:
            subject = getattr(subject, "__func__", None) or getattr(subject, "__wrapped__", None)


def _nested(codes: Iterable[CodeType]) -> Iterator[CodeType]:
    """Yield code objects, and those of the functions and classes defined in them."""
    for code in codes:
        yield code
        yield from _nested(each for each in code.co_consts if isinstance(each, CodeType))


def _function_of(value: Any) -> FunctionType | None:
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return value if isinstance(value, FunctionType) else None


def is_of_standard_library(module: ModuleType) -> bool:
    """Return whether a module is part of the standard library."""
    return module.__name__.partition(".")[0] in sys.stdlib_module_names
