"""Each test is named after the anomaly that it rules out, as the literature on isolation names them.

The names are those of Berenson et al., "A Critique of ANSI SQL Isolation Levels" (SIGMOD 1995), and of
Adya, "Weak Consistency" (1999). An anomaly is written once, as a schedule of threads over a store that
tells whether it has been seen. It must not be seen on a store, and it must be on one that is broken on
purpose: so the schedule is known to be able to see it.
"""

from __future__ import annotations

import pytest

from latchstore import DictMemoryStore
from tests.contract.isolation import (
    CONDITIONAL,
    LOOKS,
    aborted_read,
    crossed_read_skew,
    dirty_read,
    dirty_write,
    intermediate_read,
    lost_update,
    lost_update_by,
    non_repeatable_read,
    phantom_by,
    phantom_within_a_block,
    read_skew,
    snapshot_read_skew,
    write_skew,
)
from tests.isolation.broken import (
    WithoutConditions,
    WithoutOwner,
    WithoutSnapshots,
    WithoutValidation,
    WritingThrough,
)
from tests.isolation.steps import assert_ruled_out

exclusive_and_optimistic = pytest.mark.parametrize(
    "optimistic", [False, True], ids=["exclusive", "optimistic"]
)


def broken_in(exclusive: type[DictMemoryStore], optimistic: type[DictMemoryStore]) -> pytest.MarkDecorator:
    """Return the mark of a test of both kinds of blocks, each with a store that lets its anomaly through."""
    pairs = [(False, exclusive), (True, optimistic)]
    return pytest.mark.parametrize(("optimistic", "broken"), pairs, ids=["exclusive", "optimistic"])


needs_owner_or_snapshots = broken_in(WithoutOwner, WithoutSnapshots)
needs_owner_or_validation = broken_in(WithoutOwner, WithoutValidation)


@exclusive_and_optimistic
def test_dirty_write(optimistic: bool) -> None:
    assert_ruled_out(dirty_write, optimistic, WritingThrough)


@exclusive_and_optimistic
def test_dirty_read(optimistic: bool) -> None:
    assert_ruled_out(dirty_read, optimistic, WritingThrough)


@exclusive_and_optimistic
def test_aborted_read(optimistic: bool) -> None:
    assert_ruled_out(aborted_read, optimistic, WritingThrough)


@exclusive_and_optimistic
def test_intermediate_read(optimistic: bool) -> None:
    assert_ruled_out(intermediate_read, optimistic, WritingThrough)


@needs_owner_or_snapshots
def test_non_repeatable_read(optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(non_repeatable_read, optimistic, broken)


@needs_owner_or_snapshots
def test_read_skew(optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(read_skew, optimistic, broken)


@exclusive_and_optimistic
def test_read_skew_and_non_repeatable_read_of_a_snapshot(optimistic: bool) -> None:
    assert_ruled_out(snapshot_read_skew, optimistic, WithoutSnapshots)


@needs_owner_or_validation
def test_lost_update(optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(lost_update, optimistic, broken)


@pytest.mark.parametrize("created", [True, False], ids=["there before", "missing before"])
@pytest.mark.parametrize("conditional", CONDITIONAL)
def test_lost_update_by_if_revision(conditional: str, created: bool) -> None:
    assert_ruled_out(lost_update_by(conditional, created), False, WithoutConditions)


@needs_owner_or_validation
def test_write_skew(optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(write_skew, optimistic, broken)


@needs_owner_or_validation
def test_write_skew_by_crossed_reads(optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(crossed_read_skew, optimistic, broken)


@needs_owner_or_validation
@pytest.mark.parametrize("look", LOOKS)
def test_phantom(look: str, optimistic: bool, broken: type[DictMemoryStore]) -> None:
    assert_ruled_out(phantom_by(look), optimistic, broken)


@needs_owner_or_snapshots
@pytest.mark.parametrize("deleted", [False, True], ids=["that comes", "that goes"])
def test_phantom_within_a_block(optimistic: bool, broken: type[DictMemoryStore], deleted: bool) -> None:
    assert_ruled_out(phantom_within_a_block(deleted), optimistic, broken)
