"""No loop stands where Python 3.12 to 3.14 would let an exception past its handler.

They do not count the jump from the end of a loop back to its condition as a part of the ``try`` or ``with``
around it (it is in no entry of the code's exception table). KeyboardInterrupt, and what another thread sets,
are raised at just such jumps: they would leave the block without its handler or its ``__exit__``. So in the
store such a loop has a function of its own, and what is tried is the call.
"""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import latchstore
from latchstore.programs import PROGRAMS

PACKAGE = Path(latchstore.__file__).parent
#: Those that are struck: the demonstration and the checkers are not.
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).with_suffix("").parts[0] not in PROGRAMS
]


def guarded_loops(node: ast.AST, guarded: bool = False) -> Iterator[int]:
    """Find the lines of loops that jump back on a condition, right inside of a ``try`` or ``with``."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            inside = guarded or (isinstance(node, (ast.Try, ast.With)) and field == "body")
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp)):
                inside = False
            if inside and isinstance(child, (ast.stmt, ast.expr)) and jumps_back_on_condition(child):
                yield child.lineno
            yield from guarded_loops(child, inside)


def jumps_back_on_condition(node: ast.AST) -> bool:
    match node:
        case ast.While(test=test):
            return not isinstance(test, ast.Constant)
        case ast.For(body=[*_, ast.If()]):
            return True
        case ast.ListComp() | ast.SetComp() | ast.DictComp():
            return any(generator.ifs for generator in node.generators)
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_loop_with_a_condition_is_right_inside_of_a_guarded_block(path: Path) -> None:
    assert list(guarded_loops(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("try:\n while a: b\nfinally: c", 1),
        ("with a:\n for b in c:\n  if d: e", 1),
        ("with a:\n b = [c for c in d if e]", 1),
        ("try:\n a\nfinally:\n while b: c", 0),
        ("with a:\n for b in c: d", 0),
        ("with a:\n def f():\n  while b: c", 0),
        ("while a:\n with b: c", 0),
    ],
)
def test_what_is_found(source: str, count: int) -> None:
    assert len(list(guarded_loops(ast.parse(source)))) == count


# -- what it is about -----------------------------------------------------------------------------


def uncovered_jumps(code: CodeType) -> list[int]:
    entries: list[Any] = vars(dis.Bytecode(code))["exception_entries"]
    return [
        each.offset
        for each in dis.get_instructions(code)
        if each.opname == "JUMP_BACKWARD"
        and not any(entry.start <= each.offset < entry.end for entry in entries)
    ]


def test_python_3_12_to_3_14_lets_exceptions_past() -> None:
    def loop() -> None:
        try:
            for source in SOURCES:
                if source:
                    source.stat()
        finally:
            SOURCES.clear()

    assert bool(uncovered_jumps(loop.__code__)) == ((3, 12) <= sys.version_info[:2] <= (3, 14))
