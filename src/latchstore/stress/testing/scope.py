"""The code in which threads are switched, and whose locks are replaced.

Thread safety: as `Scope`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

from latchstore.stress.scope import Scope
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
        self._names = tuple(test.modules) or (kind.__module__,)
        self.switched: bool = bool(test.modules) or self.has_python(kind)
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
