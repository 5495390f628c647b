"""A history, written to a file and read again, is the same; a broken file says where it is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latchstore.stress.history import History, HistoryError, Operation, environment

OPERATIONS = (
    Operation(0, "set", "a", "x", None, 10, 20, "ok", revision=1),
    Operation(1, "get", "a", None, "x", 15, 25),
    Operation(0, "delete", "b", None, None, 21, 22, "fail", transaction=3),
    Operation(2, "set", "a", "y", None, 23, 29, "info"),
    Operation(1, "len", None, None, 1, 30, 31),
    Operation(0, "set", "a", "z", None, 40, None, "info", transaction=4),
)


def test_operations_stand_in_the_order_of_their_beginnings() -> None:
    assert History(reversed(OPERATIONS)).operations == OPERATIONS


def test_by_key() -> None:
    keys = History(OPERATIONS).by_key()
    assert {key: len(operations) for key, operations in keys.items()} == {"a": 4, "b": 1}
    assert keys["b"] == [OPERATIONS[2]]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    written = History(OPERATIONS, {"seed": 7, **environment()})
    written.write(path)
    read = History.read(path)
    assert read == written
    assert read.header["seed"] == 7
    assert {"python", "gil", "switch_interval", "latchstore"} <= read.header.keys()


def test_the_file_has_one_record_for_each_beginning_and_end_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(OPERATIONS).write(path)
    header, *records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert header == {"type": "header", "format": 1}
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    assert [record["type"] for record in records].count("invoke") == len(OPERATIONS)
    assert [record["type"] for record in records if record["type"] != "invoke"] == [
        "ok",
        "fail",
        "ok",
        "info",
        "ok",
    ]


def test_an_operation_without_an_end_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(OPERATIONS[:2]).write(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-1]), encoding="utf-8")  # the run was killed
    assert History.read(path).operations == (
        OPERATIONS[0],
        Operation(1, "get", "a", None, None, 15, None, "info"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"type": "invoke"}', "line 1: .*must be a header of format 1"),
        ('{"type": "header", "format": 2}', "line 1: .*must be a header of format 1"),
        ('{"type": "header"}', "line 1: KeyError"),
        ("[1]", "line 1"),
        ('{"type": "header", "format": 1}\nnonsense', "line 2: .*nonsense"),
        ('{"type": "header", "format": 1}\n{"type": "jump"}', "line 2: .*unknown type 'jump'"),
        ('{"type": "header", "format": 1}\n{"type": "ok", "id": 5}', "line 2: KeyError"),
    ],
)
def test_a_broken_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HistoryError, match=message):
        History.read(path)


def test_precedes() -> None:
    first, second, third, fourth, *_ = OPERATIONS
    assert not first.precedes(second)  # they overlap
    assert first.precedes(third)
    assert not fourth.precedes(OPERATIONS[4])  # nobody knows when it took effect
    touching = Operation(1, "get", "a", None, "x", 20, 21)
    assert not first.precedes(touching)


def test_an_operation_says_what_it_was() -> None:
    assert [str(operation) for operation in OPERATIONS[:5]] == [
        "thread 0: set('a', 'x') -> None",
        "thread 1: get('a') -> 'x'",
        "thread 0: delete('b') (fail)",
        "thread 2: set('a', 'y') (info)",
        "thread 1: len() -> 1",
    ]
