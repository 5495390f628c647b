"""CPython's own tests of mappings, on ours."""

from __future__ import annotations

import importlib
import unittest
from typing import Any
from unittest import mock

import pytest

from latchstore import Cache, StoreMapping
from tests.mapping.makers import (
    Make,
    bounded_cache,
    cache,
    cache_of_a_shared_store,
    mapping_of_a_minimal_store,
    mapping_of_a_store,
)

# Reached by way of the module: pytest collects test classes from wherever they are imported to.
try:
    mapping_tests: Any = importlib.import_module("test.mapping_tests")
except ImportError:
    mapping_tests = None


their_tests = pytest.mark.skipif(mapping_tests is None, reason="this Python comes without its own tests")


def cache_of_references() -> StoreMapping:
    return Cache()


def basic() -> Any:
    """Return the class of CPython's tests whose keys are strings."""
    return mapping_tests.BasicTestMappingProtocol


class CPythonsTests:
    """CPython's tests. Those that are overridden have keys that are no strings, or ask for more.

    ``test_fromkeys`` and ``test_copy`` are left out, as CPython does itself for ``os.environ``: a view is of
    one store, and there is none that a copy could be of.
    """

    make: Make

    test_fromkeys = None
    test_copy = None

    def setUp(self: Any) -> None:
        # To CPython's tests an empty mapping is false. A cache is not, and does all else that they ask for.
        self.enterContext(mock.patch.object(Cache, "__bool__", lambda cache: len(cache) > 0))

    def _empty_mapping(self) -> StoreMapping:
        return type(self).make()

    def type2test(self, **items: Any) -> StoreMapping:
        made = self._empty_mapping()
        made.update(items)
        return made

    # The keys that CPython's have beyond those of `basic` are numbers; here they are strings.

    def test_values(self) -> None:
        basic().test_values(self)
        assert list(self.type2test(one=2).values()) == [2]

    def test_items(self) -> None:
        basic().test_items(self)
        assert list(self.type2test(one=2).items()) == [("one", 2)]

    def test_clear(self) -> None:
        mapping = self.type2test(one=1, two=2, three=3)
        mapping.clear()
        assert mapping == {}
        with pytest.raises(TypeError):
            mapping.clear(None)  # type: ignore[call-arg]

    def test_update(self) -> None:
        basic().test_update(self)
        mapping = self._empty_mapping()
        mapping.update({"1": 100})
        mapping.update({"2": 20})
        mapping.update({"1": 1, "2": 2, "3": 3})
        mapping.update()
        assert mapping == {"1": 1, "2": 2, "3": 3}
        mapping = self._empty_mapping()
        mapping.update([("x", 100), ("y", 20)], x=1, z=3)
        assert mapping == {"x": 1, "y": 20, "z": 3}
        mapping.update(self.type2test(x=4).items())
        assert mapping == {"x": 4, "y": 20, "z": 3}

    def test_setdefault(self) -> None:
        basic().test_setdefault(self)
        mapping = self._empty_mapping()
        assert mapping.setdefault("key0") is None
        assert mapping.setdefault("key0", []) is None
        # What is returned is the caller's own: what is done to it changes nothing here.
        mapping.setdefault("key", []).append(3)
        assert mapping.setdefault("key", [4]) == []

    def test_popitem(self) -> None:
        # Which item goes is not promised, so two mappings are not compared item by item.
        basic().test_popitem(self)
        for size in (1, 2, 64):
            items = {str(number): number for number in range(size)}
            mapping = self.type2test(**items)
            assert dict(mapping.popitem() for _ in items) == items
            assert len(mapping) == 0


def cpythons_tests(made: Make) -> type[unittest.TestCase]:
    """Return CPython's tests of one kind of mapping."""

    theirs = unittest.TestCase if mapping_tests is None else mapping_tests.TestMappingProtocol

    class OfAMapping(CPythonsTests, theirs):  # type: ignore[misc, valid-type]
        make = staticmethod(made)

    tests: type[unittest.TestCase] = their_tests(OfAMapping)
    return tests


TestCPythonsOfAStore = cpythons_tests(mapping_of_a_store)
TestCPythonsOfAMinimalStore = cpythons_tests(mapping_of_a_minimal_store)
TestCPythonsOfACache = cpythons_tests(cache)
TestCPythonsOfABoundedCache = cpythons_tests(bounded_cache)
TestCPythonsOfACacheOfASharedStore = cpythons_tests(cache_of_a_shared_store)


class TestCPythonsOfACacheOfReferences(cpythons_tests(cache_of_references)):  # type: ignore[misc]
    def test_setdefault(self) -> None:
        basic().test_setdefault(self)
        mapping = self._empty_mapping()
        assert mapping.setdefault("key0") is None
        assert mapping.setdefault("key0", []) is None
        # What is returned is what the cache has.
        mapping.setdefault("key", []).append(3)
        assert mapping.setdefault("key", [4]) == [3]


@their_tests
def test_cpythons_class_holds_tests() -> None:
    # Else all of the above would pass because there is nothing to do.
    assert sum(name.startswith("test_") for name in dir(mapping_tests.TestMappingProtocol)) >= 15
