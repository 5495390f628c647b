"""The pytest plugin of latchstore: `latchstore.stress.Test` classes, the marker stress, a fixture.

Every run of pytest loads it where latchstore is installed. So it stands beside the package, and imports
nothing of it until a test uses the harness. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import pytest

_MARKER = (
    "stress(workloads=(), schedule='mixed', threads=3, operations=1_000, length=None, seed=0, faults=()): "
    "how the fixture linearizable_store tests a store; the arguments are those of "
    "latchstore.stress.linearizable_store."
)


class _PlainImports(MetaPathFinder):
    """Finds modules of latchstore without pytest's assertion rewriting.

    Pytest rewrites the assertions of every module of a distribution that has a plugin, by a finder that it
    inserts before it loads the plugins. The assertions of latchstore are not tests.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "latchstore" or fullname.startswith("latchstore."):
            return PathFinder.find_spec(fullname, path, target)
        return None


# Here, and not in a hook: the first conftest.py may import latchstore.
sys.meta_path.insert(0, _PlainImports())


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> pytest.Item | None:
    """Collect a subclass of `latchstore.stress.Test` that defines `make`."""
    if "latchstore.stress.testing.case" not in sys.modules:
        return None
    from latchstore.stress.pytest_support import item_of

    return item_of(collector, name, obj)


@pytest.fixture
def linearizable_store(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that tests the stores of a factory under load, and fails the test on a violation.

    The test's marker ``stress`` gives the options; arguments of the function override them. The message of a
    failure ends with the command that repeats it.
    """
    from latchstore.stress.pytest_support import checker

    return checker(request)
