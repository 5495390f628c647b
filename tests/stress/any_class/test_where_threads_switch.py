"""The code in which threads are switched by default: that of decorators, and of what the object holds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore.stress import Test, operation

pytestmark = pytest.mark.timeout(120)

LIBRARY = '''
import functools
import threading

def once(function):
    called = []

    @functools.wraps(function)
    def wrapper():
        if called:
            return None
        called.append(None)
        return function()

    return wrapper

class Once:
    """The same as a class, and as a property of one."""

    def __init__(self, function):
        self.function = self.__wrapped__ = function
        self.lock = threading.RLock()
        self.called = []

    def __call__(self):
        with self.lock:
            if self.called:
                return None
        self.called.append(None)
        return self.function()

    def __get__(self, owner, kind):
        with self.lock:
            known = vars(owner).setdefault("known", [])
            if not known:
                known.append(self.function(owner))
            return known[0]

class Counter:
    value = 0

    def increment(self):
        value = self.value
        self.value = value + 1
        return value + 1
'''

USER = """
from racy_library import Once

class WithProperty:
    calls = 0

    def count(self):
        calls = self.calls
        self.calls = calls + 1
        return self.calls

    once = Once(count)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of others, in which there is a race."""
    (tmp_path / "racy_library.py").write_text(LIBRARY, encoding="utf-8")
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "user_of_library.py").write_text(USER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "user")
    yield importlib.import_module("racy_library")
    for name in ("racy_library", "user_of_library"):
        sys.modules.pop(name, None)


class Holder:
    """Made for the test."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter


class RacyTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 300
    library: Any = None


@pytest.mark.parametrize("kind", ["once", "Once"])
def test_within_the_decorator_of_a_function(library: Any, kind: str) -> None:
    class OnceTest(RacyTest):
        __test__ = False

        def make(self) -> Any:
            return getattr(library, kind)(lambda: "done")

        @operation()
        def call(self, function: Any) -> Any:
            return function()

    report = OnceTest.run()
    assert report.answer == "invalid", str(report)
    assert "racy_library" in report.modules


@pytest.mark.usefixtures("library")
def test_locks_of_properties_are_replaced() -> None:
    user = importlib.import_module("user_of_library")

    class PropertyTest(RacyTest):
        __test__ = False
        schedules = 100

        def make(self) -> Any:
            return user.WithProperty()

        @operation()
        def read(self, subject: Any) -> Any:
            return subject.once

    report = PropertyTest.run()
    assert report.passed, str(report)
    assert "racy_library" in report.modules


@pytest.mark.parametrize("kind", ["object", "tuple", "dict"])
def test_within_what_a_holder_holds(library: Any, kind: str) -> None:
    class HolderTest(RacyTest):
        __test__ = False

        def make(self) -> Any:
            counter = library.Counter()
            return {"object": Holder(counter), "tuple": (counter, []), "dict": {"counter": counter}}[kind]

        @operation()
        def increment(self, held: Any) -> Any:
            if kind == "object":
                return held.counter.increment()
            return held[0 if kind == "tuple" else "counter"].increment()

        def state(self, held: Any) -> None:
            """Nothing."""

    report = HolderTest.run()
    assert report.answer == "invalid", str(report)
    assert "racy_library" in report.modules
    assert report.run is not None
    assert not report.run.native
