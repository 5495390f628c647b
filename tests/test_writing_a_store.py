"""The store of docs/how-to/writing-a-store.md keeps the contract, except where the page names a lack."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latchstore import AbstractStore, EventManager
from latchstore.stress.check import StressError, linearizable_store
from tests.contract.files import ToFileContract
from tests.contract.many_keys import ManyKeysReadingContract, ManyKeysWritingContract
from tests.contract.reading import ReadingContract, ValueContract
from tests.contract.transactions import TransactionContract
from tests.contract.writing import WritingContract

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "writing-a-store.md"


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The class of the page's first example, from a file, as a user's would be."""
    folder = tmp_path_factory.mktemp("page")
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    (folder / "small_store.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("small_store").SmallStore
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("small_store", None)


def test_it_has_at_most_40_lines() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40


class SmallStores:
    @pytest.fixture
    def store(self, small_store: Any) -> Iterator[AbstractStore]:
        with small_store(EventManager()) as store:
            yield store


class TestReading(SmallStores, ReadingContract): ...


class TestValues(SmallStores, ValueContract): ...


class TestManyKeysReading(SmallStores, ManyKeysReadingContract): ...


class TestManyKeysWriting(SmallStores, ManyKeysWritingContract): ...


class TestToFile(SmallStores, ToFileContract): ...


class TestWriting(SmallStores, WritingContract):
    # It has no revisions, and what cannot be copied is refused without the name of the key.
    test_the_revision_grows = None  # type: ignore[assignment]
    test_the_revision_grows_over_all_keys = None  # type: ignore[assignment]
    test_metadata_that_cannot_be_copied_changes_nothing = None


class TestTransaction(SmallStores, TransactionContract):
    test_revisions_grow_by_a_block = None  # type: ignore[assignment]


@pytest.mark.parametrize("schedule", ["pct", "native"])
def test_the_harness_finds_nothing(small_store: Any, schedule: Any) -> None:
    outcome = linearizable_store(small_store, schedule=schedule, operations=1_000)
    assert {"registers", "transactions", "scans"} <= outcome.result.verdicts.keys()
    assert not {"events", "snapshots", "compare-and-set"} & outcome.result.verdicts.keys()


def test_a_multiget_that_is_several_gets_is_found(small_store: Any) -> None:
    class Torn(small_store):  # type: ignore[misc]
        def multiget(self, keys: Any) -> Any:
            return iter([self.get(key) for key in keys])

    with pytest.raises(StressError, match="bank: "):
        linearizable_store(Torn, schedule="random", workloads=["bank"], operations=20_000)
