"""The stress harness: records what threads do to an object, and checks the record for errors of the object.

`Test` is for any class, see docs/how-to/testing-a-class.md; ``python -m latchstore stress --test
module:Class`` and pytest run one. ``python -m latchstore stress`` without it tests a store, as does
`linearizable_store` in a test. README.md beside this file lists the checks and what they have found.

The store does not import this program; it may import all other packages except other programs. Begin with
``testing`` for classes, and with ``check.py`` for stores, which goes from a factory to a verdict.
``workloads`` has the operations on a store, ``recording.py`` writes the history, ``linearizability.py`` and
the other checkers check it, ``controlled.py`` and ``scheduler.py`` run one thread at a time.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from latchstore.stress.check import StressError, linearizable_store
    from latchstore.stress.models import REFUSED, UNKNOWN, Model
    from latchstore.stress.testing.answers import WAITING, Raised
    from latchstore.stress.testing.case import Test
    from latchstore.stress.testing.definition import blocking_operation, invariant, operation
    from latchstore.stress.testing.report import Report, TestFailedError

__all__ = [
    "REFUSED",
    "UNKNOWN",
    "WAITING",
    "Model",
    "Raised",
    "Report",
    "StressError",
    "Test",
    "TestFailedError",
    "blocking_operation",
    "invariant",
    "linearizable_store",
    "operation",
]

#: Names imported at their first use, so that pytest, which loads the plugin, does not import the harness.
_LOADED_WHEN_USED = {
    "REFUSED": "models",
    "UNKNOWN": "models",
    "WAITING": "testing.answers",
    "Model": "models",
    "Raised": "testing.answers",
    "Report": "testing.report",
    "StressError": "check",
    "Test": "testing.case",
    "TestFailedError": "testing.report",
    "blocking_operation": "testing.definition",
    "invariant": "testing.definition",
    "linearizable_store": "check",
    "operation": "testing.definition",
}


def __getattr__(name: str) -> object:
    module = _LOADED_WHEN_USED.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
