"""The table of tests/mutants/README.md names each method of the contract, and mutants that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latchstore import AbstractStore, DictMemoryStore
from latchstore.stress.workloads import WORKLOADS
from tests.mutants.catalogue import MUTANTS

README = Path(__file__).parents[1] / "mutants" / "README.md"

#: The modules whose mutants are each of a method.
OF_METHODS = ("tests.mutants.keys:", "tests.mutants.contract:", "tests.mutants.searches:")

#: Python's own, or no call of a store: how it is made, shown and copied.
_OTHERS = {"__init__", "__repr__", "__reduce_ex__", "__aenter__", "__aexit__"}


def rows() -> list[list[str]]:
    _, _, table = README.read_text(encoding="utf-8").partition("<!-- methods -->\n")
    lines = table.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def public_methods() -> set[str]:
    """Return the names of the methods of our store, those of Python among them that have a meaning for it."""
    ours = [cls for cls in DictMemoryStore.__mro__ if cls.__module__.startswith("latchstore.")]
    defined = {name for cls in ours for name, value in vars(cls).items() if callable(value)}
    python = {name for name in defined if name.startswith("__")}
    return {name for name in defined if not name.startswith("_")} | (python - _OTHERS)


def test_every_method_has_a_row() -> None:
    named = set(re.findall(r"`(\w+)", " ".join(row[0] for row in rows())))
    assert not public_methods() - named
    assert {name for name in dir(AbstractStore) if not name.startswith("_")} <= named | {
        "default_codec",
        "event_manager",
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_a_workload_and_its_mutant(row: list[str]) -> None:
    method, _, workload, name = row
    if name == "none":
        assert "`info`" in method, "the others have one"
        return
    (mutant,) = [each for each in MUTANTS if each.name == name]
    assert mutant.workload == workload
    assert workload in WORKLOADS


def test_each_mutant_of_a_method_has_a_row() -> None:
    named = {row[3] for row in rows()}
    of_methods = {each.name for each in MUTANTS if each.factory.startswith(OF_METHODS)}
    assert of_methods <= named
