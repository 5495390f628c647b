"""The pytest plugin: classes derived from `Test`, ``@pytest.mark.stress(...)``, and ``linearizable_store``.

It is found by pytest once latchstore is installed, and imports the harness only when a test uses it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

_MARKER = (
    "stress(workloads=(), schedule='mixed', threads=3, operations=1_000, length=None, seed=0, faults=()): "
    "how the fixture linearizable_store puts a store under stress; the arguments are those of "
    "latchstore.stress.check.linearizable_store."
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> pytest.Item | None:
    """Collect a class that is derived from `latchstore.stress.Test` and has a `make` of its own."""
    case = sys.modules.get("latchstore.stress.testing.case")
    if case is None or not (isinstance(obj, type) and issubclass(obj, case.Test)):
        return None
    kind: Any = obj
    if kind.make is case.Test.make or not vars(kind).get("__test__", True):
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
        from latchstore.stress.testing.exploration import TestFailedError

        if isinstance(excinfo.value, TestFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        try:
            line = inspect.getsourcelines(self.kind)[1] - 1
        except OSError:
            line = 0
        return self.path, line, self.name


@pytest.fixture
def linearizable_store(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that puts the stores of a factory under stress, and fails the test if one is wrong.

    The test's marker ``stress`` says how; so do arguments of the function by name, which count more. The
    message of a failure ends with the command that shows it again.
    """
    marker = request.node.get_closest_marker("stress")
    if marker is not None and marker.args:
        raise pytest.UsageError(f"the marker stress takes arguments by name only, got {marker.args!r}")
    marked = {} if marker is None else marker.kwargs

    def check(factory: Callable[..., Any], **options: Any) -> Any:
        __tracebackhide__ = True
        from latchstore.stress.check import StressError, linearizable_store

        try:
            return linearizable_store(factory, **{**marked, **options})
        except StressError as error:
            message = str(error)
        # Outside of the except clause, or pytest would print the message of both.
        return pytest.fail(message, pytrace=False)

    return check
