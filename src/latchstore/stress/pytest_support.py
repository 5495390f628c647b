"""The part of the pytest plugin that imports the harness: items for `Test` classes, and the fixture.

The plugin itself is ``latchstore_pytest.py`` beside the package, which every run of pytest imports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from latchstore.stress.check import StressError, linearizable_store
from latchstore.stress.testing.case import Test
from latchstore.stress.testing.definition import has_operations
from latchstore.stress.testing.report import TestFailedError


def item_of(collector: pytest.Collector, name: str, kind: Any) -> pytest.Item | None:
    """Return an item for a subclass of `Test`; None for another class, and for a base class of tests.

    A base class has no `make`, and either no operations or subclasses; otherwise its `make` was forgotten.
    """
    if not (isinstance(kind, type) and issubclass(kind, Test)) or not vars(kind).get("__test__", True):
        return None
    if kind.make is Test.make and (kind.__subclasses__() or not has_operations(kind)):
        return None
    item: pytest.Item = _TestItem.from_parent(collector, name=name, kind=kind)
    return item


class _TestItem(pytest.Item):
    """Runs a `latchstore.stress.Test`."""

    def __init__(self, *, kind: Any, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind
        self.own_markers.extend(getattr(kind, "pytestmark", []))
        self.keywords.update({mark.name: mark for mark in self.own_markers})

    def runtest(self) -> None:
        self.kind.run().check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, TestFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        try:
            line = inspect.getsourcelines(self.kind)[1] - 1
        except OSError:
            line = 0
        return self.path, line, self.name


def checker(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return the value of a test's fixture ``linearizable_store``."""
    marker = request.node.get_closest_marker("stress")
    if marker is not None and marker.args:
        raise pytest.UsageError(f"the marker stress takes arguments by name only, got {marker.args!r}")
    marked = {} if marker is None else marker.kwargs

    def check(factory: Callable[..., Any], **options: Any) -> Any:
        __tracebackhide__ = True
        try:
            return linearizable_store(factory, **{**marked, **options})
        except StressError as error:
            message = str(error)
        # Outside of the except clause, so that pytest does not print both messages.
        return pytest.fail(message, pytrace=False)

    return check
