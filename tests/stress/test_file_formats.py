"""The formats in which others record histories: each way to write one is read as the same operations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from latchstore.__main__ import main
from latchstore.stress.check_command import check_file
from latchstore.stress.edn import read_edn
from latchstore.stress.files import read_history
from latchstore.stress.history import HistoryError, Operation

#: Two clients: a write, beside it a read of the value before, and a compare-and-set that no one saw end.
RECORDS: list[dict[str, Any]] = [
    {"process": 0, "type": "invoke", "f": "write", "value": 1},
    {"process": 1, "type": "invoke", "f": "read", "value": None},
    {"process": 0, "type": "ok", "f": "write", "value": 1},
    {"process": "nemesis", "type": "info", "f": "start", "value": None},
    {"process": 1, "type": "ok", "f": "read", "value": None},
    {"process": 0, "type": "invoke", "f": "cas", "value": [1, 2]},
    {"process": 0, "type": "info", "f": "cas", "value": [1, 2]},
    {"process": 1, "type": "invoke", "f": "read", "value": None},
    {"process": 1, "type": "ok", "f": "read", "value": "%d"},
]

WAYS = {
    "edn": "\n".join(
        [
            "{:process 0, :type :invoke, :f :write, :value 1}",
            "{:process 1, :type :invoke, :f :read, :value nil}",
            "{:process 0, :type :ok, :f :write, :value 1}",
            "{:process :nemesis, :type :info, :f :start, :value nil}",
            "{:process 1, :type :ok, :f :read, :value nil}",
            "{:process 0, :type :invoke, :f :cas, :value [1 2]}",
            "{:process 0, :type :info, :f :cas, :value [1 2]}",
            "{:process 1, :type :invoke, :f :read, :value nil}",
            "{:process 1, :type :ok, :f :read, :value %d}",
        ]
    ),
    "log": "\n".join(
        [
            "0 :invoke :write 1",
            "1 :invoke :read nil",
            "0 :ok :write 1",
            ":nemesis :info :start nil",
            "1 :ok :read nil",
            "0 :invoke :cas [1 2]",
            "0 :info :cas [1 2]",
            "1 :invoke :read nil",
            "1 :ok :read %d",
        ]
    ),
}
_EDN, _LOG = WAYS["edn"], WAYS["log"]
_LINES = [json.dumps(each).replace('"%d"', "%d") for each in RECORDS]
WAYS |= {
    "edn in a vector": f"[{_EDN}]",
    "edn in a vector, over lines": f"; a comment\n[\n  ; another\n  {_EDN}\n]\n",
    "edn of windows": _EDN.replace("\n", "\r\n") + "\r\n",
    "edn after a byte order mark": f"\ufeff{_EDN}",
    "edn of jepsen": _EDN.replace("{", "#jepsen.history.Op{:index 0, :time 12.5, "),
    "edn with texts for keywords": _EDN.replace(":invoke", '"invoke"').replace(":read", '"read"'),
    "edn with a discarded form": _EDN.replace(":value", "#_ :gone #_{:a 1} :value"),
    "edn with an instant": _EDN.replace("{", '{:at #inst "2020-01-01T00:00:00Z", :node "n1", '),
    "log with prefixes": "\n".join(
        f"INFO  [2020-01-01 10:00:00,1] jepsen.util - {x}" for x in _LOG.splitlines()
    ),
    "log with tabs and more columns": "\n".join(
        x.replace(" ", "\t", 2).replace("\t:write ", "\t:write\t").replace(":read ", ":read\t") + "\t:hint 7"
        for x in _LOG.splitlines()
    ),
    "log with hints": "\n".join(f"{x} :hint 7" for x in _LOG.splitlines()),
    "log among other lines": f"INFO jepsen.core - Ready\nWARN a.b - slow\n{_LOG}\nINFO jepsen.core - done",
    "json lines": "\n".join(_LINES),
    "json in an array": f"[{', '.join(_LINES)}]",
    "json in an array, over lines": "[\n" + ",\n".join(x.replace(", ", ",\n  ") for x in _LINES) + "\n]\n",
    "json with events of the test": '{"type": "info", "event": "phase"}\n' + "\n".join(_LINES),
    "csv": "process,type,f,value\n"
    + "\n".join(
        [
            "0,invoke,write,1",
            "1,invoke,read,",
            "0,ok,write,1",
            "nemesis,info,start,",
            "1,ok,read,nil",
            '0,invoke,cas,"[1, 2]"',
            "0,info,cas,[1 2]",
            "1,invoke,read,null",
            "1,ok,read,%d",
        ]
    ),
}
# An entry ":type :invoke :f" looks like a line of a log.
WAYS["edn without commas, the type first"] = "\n".join(
    f"{{:index 0 {rest} :process {process}}}"
    for _, process, rest in (line.strip("{}").replace(",", "").split(" ", 2) for line in _EDN.splitlines())
)


def written(folder: Path, text: str | bytes, name: str = "history") -> str:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def facts(operations: tuple[Operation, ...]) -> list[tuple[Any, ...]]:
    order = sorted(
        [(each.begin, number, "begin") for number, each in enumerate(operations)]
        + [(each.end, number, "end") for number, each in enumerate(operations) if each.end is not None]
    )
    return [
        *(
            (each.thread, each.name, each.key, each.argument, each.result, each.outcome)
            for each in operations
        ),
        *((number, what) for _, number, what in order),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_write_a_history_is_read_as_the_same(tmp_path: Path, way: str) -> None:
    expected = [
        (0, "write", None, 1, None, "ok"),
        (1, "read", None, None, None, "ok"),
        (0, "cas", None, [1, 2], None, "info"),
        (1, "read", None, None, 2, "ok"),
    ]
    file = written(tmp_path, WAYS[way].replace("%d", "2"))
    operations = read_history(file).operations
    found = facts(operations)
    assert found[:4] == expected
    assert found[4:] == [
        (0, "begin"),
        (1, "begin"),
        (0, "end"),
        (1, "end"),
        (2, "begin"),
        (3, "begin"),
        (3, "end"),
    ]
    assert check_file(file, "cas").answer == "valid"
    assert check_file(written(tmp_path, WAYS[way].replace("%d", "3")), "cas").answer == "invalid"


def test_a_file_may_be_compressed(tmp_path: Path) -> None:
    file = written(tmp_path, gzip.compress(_EDN.replace("%d", "2").encode()), "history.edn.gz")
    assert len(read_history(file).operations) == 4
    with pytest.raises(HistoryError, match="cannot be decompressed"):
        read_history(written(tmp_path, gzip.compress(b"0 :invoke :read nil")[:-9]))


# -- whole operations ---------------------------------------------------------------------------------------

WHOLE = {
    "our names": [
        {"process": 3, "f": "put", "key": "a", "value": "x", "call": 0, "return": 10.5},
        {"process": 3, "f": "get", "key": "a", "answer": "", "call": 2, "return": 9},
        {"process": 4, "f": "get", "key": "a", "answer": "x", "call": 11, "return": 12},
        {"process": 5, "f": "put", "key": "a", "value": "y", "call": 11, "return": None},
    ],
    "the names of Porcupine": [
        {
            "ClientId": 3,
            "Input": {"Op": "put", "Key": "a", "Value": "x"},
            "Call": 0,
            "Output": None,
            "Return": 10.5,
        },
        {"ClientId": 3, "Input": {"Op": "get", "Key": "a"}, "Call": 2, "Output": {"Value": ""}, "Return": 9},
        {"ClientId": 4, "Input": {"Op": "get", "Key": "a"}, "Call": 11, "Output": "x", "Return": 12},
        {"ClientId": 5, "Input": {"Op": "put", "Key": "a", "Value": "y"}, "Call": 11, "Return": None},
    ],
}


@pytest.mark.parametrize("way", WHOLE)
def test_whole_operations_have_times_of_their_own(tmp_path: Path, way: str) -> None:
    file = written(tmp_path, "\n".join(map(json.dumps, WHOLE[way])))
    told = [
        (each.thread, each.name, each.key, each.argument, each.result, each.begin, each.end, each.outcome)
        for each in read_history(file).operations
    ]
    assert told == [
        (3, "put", "a", "x", None, 0, 10.5, "ok"),
        (3, "get", "a", None, "", 2, 9, "ok"),
        (4, "get", "a", None, "x", 11, 12, "ok"),
        (5, "put", "a", "y", None, 11, None, "info"),
    ]
    assert check_file(file, "kv").answer == "valid"


def test_whole_operations_in_csv(tmp_path: Path) -> None:
    text = "process,f,value,answer,call,return\na,write,1,,0,1\nb,read,,1,2,3\nb,read,,nil,4,5\n"
    file = written(tmp_path, text)
    assert [each.thread for each in read_history(file).operations] == [0, 1, 1]
    assert check_file(file, "register").answer == "invalid"


# -- processes, keys, values --------------------------------------------------------------------------------


def test_processes_may_have_names(tmp_path: Path) -> None:
    """They were once all passed over, and the file was valid."""
    lines = ["client-1 :invoke :write 1", "client-1 :ok :write 1", "c2 :invoke :read nil", "c2 :ok :read 7"]
    file = written(tmp_path, "\n".join(lines))
    assert [each.thread for each in read_history(file).operations] == [0, 1]
    assert check_file(file, "register").answer == "invalid"


INDEPENDENT = """
0 :invoke :write [x 1]
1 :invoke :read [y nil]
0 :ok :write [x 1]
1 :ok :read [y nil]
0 :invoke :cas [x [1 2]]
0 :ok :cas [x [1 2]]
1 :invoke :read [x nil]
1 :ok :read [x %d]
2 :invoke :write [y 3]
2 :info :write :timed-out
"""


def test_values_of_independent_registers_are_pairs_of_a_key_and_a_value(tmp_path: Path) -> None:
    file = written(tmp_path, INDEPENDENT % 2)
    told = [(each.name, each.key, each.argument, each.result) for each in read_history(file).operations]
    assert told == [
        ("write", "x", 1, None),
        ("read", "y", None, None),
        ("cas", "x", [1, 2], True),
        ("read", "x", None, 2),
        ("write", "y", 3, None),
    ]
    assert check_file(file, "cas").answer == "valid"
    assert check_file(written(tmp_path, INDEPENDENT % 3), "cas").answer == "invalid"


def test_a_pair_that_a_register_has_as_its_value_stays_one(tmp_path: Path) -> None:
    file = written(
        tmp_path, "0 :invoke :write [1 2]\n0 :ok :write [1 2]\n0 :invoke :read nil\n0 :ok :read [1 2]\n"
    )
    assert [each.key for each in read_history(file).operations] == [None, None]
    assert check_file(file, "register").answer == "valid"


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        (":type :ok, :value [1 2]", True),
        (":type :ok", True),
        (":type :ok, :value [1 2], :answer false", False),
        (":type :ok, :value false", False),
    ],
)
def test_whether_a_cas_that_returned_has_replaced_the_value(tmp_path: Path, end: str, answer: bool) -> None:
    lines = ["{:process 0, :type :invoke, :f :cas, :value [1 2]}", f"{{:process 0, :f :cas, {end}}}"]
    (operation,) = read_history(written(tmp_path, "\n".join(lines))).operations
    assert (operation.outcome, operation.result) == ("ok", answer)


def test_sets_are_compared_as_sets(tmp_path: Path) -> None:
    assert list(read_edn("#{1 [2 #{3}]} {[1 {:a 2}] 3}")) == [
        {1, (2, frozenset({3}))},
        {(1, frozenset({("a", 2)})): 3},
    ]
    lines = ["0 :invoke :write #{1 2}", "0 :ok :write nil", "0 :invoke :read nil", "0 :ok :read #{2 1}"]
    assert check_file(written(tmp_path, "\n".join(lines)), "register").answer == "valid"


def test_edn_that_histories_seldom_have() -> None:
    assert list(read_edn("##Inf a#b #_ #_ 1 2 [3 #_ 4] ^x #:n{:a 1} #_5")) == [
        float("inf"),
        "a#b",
        [3],
        "^x",
        {"a": 1},
    ]


def test_keys_that_were_never_written_have_nil_where_the_history_has(tmp_path: Path) -> None:
    lines = [
        f'{{"process": 0, "type": "{each}", "f": "get", "key": "a", "value": null}}'
        for each in ("invoke", "ok")
    ]
    assert check_file(written(tmp_path, "\n".join(lines)), "kv").answer == "valid"


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected operations of clients, got none"),
        ("{:process :nemesis, :type :info, :f :start}", "expected operations of clients, got none"),
        (
            '{"process": 0, "type": "invoke", "f": "read"}\n{"process": 0, "type": "ok", "f"',
            "line 2: expected JSON: ",
        ),
        ('[{"process": 0, "type": "invoke", "f": "read"},\n 7]', "line 2: expected a map, got 7"),
        ('{"process": 0, "kind": "invoke"}', "line 1: expected :process, :type and :f, such as "),
        (
            '{"process": [0], "type": "invoke", "f": "read"}',
            "line 1: expected :process, :type and :f, such as ",
        ),
        (
            '{"process": 0, "f": "read", "call": 3, "return": 2}',
            "line 1: expected process, f, value, answer, call",
        ),
        (
            '{"process": 0, "f": "read", "call": "noon"}',
            "line 1: expected process, f, value, answer, call and return",
        ),
        ('{"process": 0, "call": 1}', "line 1: expected process, f, value, answer, call and return"),
        (
            '{"process": 0, "f": "read", "call": 1}\n{"process": 0, "type": "invoke", "f": "read"}',
            "expected either operations, or their begins and ends, got both",
        ),
        ("process,type,f\n0,invoke,read\n0,begin,read\n", "line 3: expected :process, :type and :f"),
        (
            "INFO x - 0 :invoke :read nil\nINFO x - 0 :ok :read\nINFO x - :ok :read\n",
            "line 3: expected process, type",
        ),
    ],
)
def test_what_is_no_history_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, text)
    assert main(["check", file, "--model", "cas"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"latchstore check: error: {file}")
    assert message in error
    assert error.endswith("the formats, and how to convert others: docs/how-to/checking-histories.md\n")
