"""Which code threads are switched within, and whose locks are replaced.

Thread safety: as `Scope`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

from latchstore.stress.scope import Scope
from latchstore.stress.testing.definition import Definition


class TestScope(Scope):
    """The code of the class under test, or that which the test names.

    Parameters
    ----------
    test : Definition
        It makes an object, to see of which class it is.

    Attributes
    ----------
    switched : bool
        Whether there is Python code to switch threads within.
    """

    def __init__(self, test: Definition) -> None:
        subject = test.make()
        kind = type(subject)
        test.teardown(subject)
        super().__init__(subject, modules=test.modules)
        self._names = tuple(test.modules) or (kind.__module__,)
        self.switched: bool = bool(test.modules) or self.has_python(kind)
        # What `make` may make locks by.
        self._of_test = sys.modules.get(type(test).__module__)

    @property
    def names(self) -> tuple[str, ...]:
        """The modules within which threads were switched so far; else those that may be."""
        return self.switched_within() or self._names

    def modules(self) -> Iterator[ModuleType]:
        """Return the modules whose locks are replaced: those under test, and the test's own."""
        yield from super().modules()
        if self._of_test is not None:
            yield self._of_test
