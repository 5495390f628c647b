"""The pytest plugin: ``@pytest.mark.stress(...)`` and the fixture ``linearizable_store``.

It is found by pytest once latchstore is installed, and imports the harness only when the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_MARKER = (
    "stress(workloads=(), schedule='pct', threads=3, operations=1_000, length=None, seed=0, faults=()): "
    "how the fixture linearizable_store puts a store under stress; the arguments are those of "
    "latchstore.stress.check.linearizable_store."
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


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
