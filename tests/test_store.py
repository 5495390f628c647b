"""What `AbstractStore` defines is right on top of any store: the contract holds for the smallest one.

The store in ``contract/reference_store.py`` defines the abstract methods and nothing else. It has no
events and no threads, so those parts of the contract are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchstore import AbstractStore
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.reference_store import ReferenceStore
from tests.contract.writing import WritingContract


class ReferenceStores:
    """The store of each test in this module."""

    @pytest.fixture
    def store(self) -> Iterator[AbstractStore]:
        with ReferenceStore() as store:
            yield store


class TestReading(ReferenceStores, ReadingContract): ...


class TestValues(ReferenceStores, ValueContract): ...


class TestWriting(ReferenceStores, WritingContract): ...


class TestManyKeysReading(ReferenceStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(ReferenceStores, ManyKeysWritingContract): ...
