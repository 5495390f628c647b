"""The code in which threads are switched, and whose locks are replaced.

Thread safety: as `Scope`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from latchstore.stress.scope import Scope, functions_of, is_of_standard_library
from latchstore.stress.testing.definition import Definition


class TestScope(Scope):
    """The code of the class under test, or the modules that the test names.

    Parameters
    ----------
    test : Definition
        Its `make` is called once, to determine the class of the object.

    Attributes
    ----------
    switched : bool
        Whether there is Python code in which threads can switch.
    """

    def __init__(self, test: Definition) -> None:
        subject = test.make()
        kind = type(subject)
        test.teardown(subject)
        super().__init__(subject, modules=test.modules)
        self.add_parts(subject)
        kinds = [kind]
        if kind.__module__ in (type(test).__module__, "builtins", "types"):
            # Made for the test, to hold what is under test.
            for each in held_by(subject):
                self.add(each)
                self.add_parts(each)
                kinds.append(type(each))
        self._names = tuple(test.modules) or tuple(dict.fromkeys(each.__module__ for each in kinds))
        self.switched: bool = (
            bool(test.modules)
            or any(map(self.has_python, kinds))
            or any(self.traced(each.__code__) for each in functions_of(subject))
        )
        # `make` may create locks through this module.
        self._of_test = sys.modules.get(type(test).__module__)

    @property
    def names(self) -> tuple[str, ...]:
        """Modules in which threads were switched so far; before that, those in which they may be."""
        return self.switched_within() or self._names

    def modules(self) -> Iterator[ModuleType]:
        """Return the modules whose locks are replaced: those under test, and the test's own."""
        yield from super().modules()
        if self._of_test is not None:
            yield self._of_test


def held_by(subject: Any) -> Iterator[object]:
    """Yield the objects of third-party classes in the attributes and items of an object.

    For builtin containers, which are nothing by themselves, also those of classes of the standard library.
    """
    held: list[object] = list(getattr(subject, "__dict__", {}).values())
    if isinstance(subject, tuple | list | set | frozenset):
        held += subject
    elif isinstance(subject, dict):
        held += subject.values()
    for each in held:
        module = sys.modules.get(type(each).__module__)
        if module is None or module.__name__ == "builtins":
            continue
        if type(subject).__module__ == "builtins" or not is_of_standard_library(module):
            yield each
