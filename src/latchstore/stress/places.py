"""Places in bytecode where threads may switch, and where an exception from outside may be raised.

Thread safety: only caches change, by single operations of a dict.
"""

from __future__ import annotations

import dis
import itertools
from types import CodeType

#: Bytecodes before which another thread may run. All others access the thread's own stack only.
_POINTS = (
    "ATTR",
    "SUBSCR",
    "CALL",
    "METHOD",
    "CONTAINS_OP",
    "FOR_ITER",
    "BEFORE_WITH",
    "STORE_GLOBAL",
    "STORE_SLICE",
    "BINARY_SLICE",
    "UNPACK_SEQUENCE",
    "_EXTEND",
    "_UPDATE",
)


def name_of(instruction: dis.Instruction) -> str:
    """Return the name of a bytecode: of a subscript that of Python 3.13, later ones have a ``BINARY_OP``."""
    if instruction.opname == "BINARY_OP" and instruction.argrepr == "[]":
        return "BINARY_SUBSCR"
    return instruction.opname


def is_shared(instruction: dis.Instruction, code: CodeType) -> bool:
    """Return whether a bytecode writes a variable of an enclosing function, which threads may share."""
    return instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars


_points: dict[CodeType, frozenset[int]] = {}


def points_of(code: CodeType) -> frozenset[int]:
    """Return the offsets of the bytecodes of a code object at which threads may switch."""
    found = _points.get(code)
    if found is None:
        found = _points[code] = frozenset(
            instruction.offset
            for instruction in dis.get_instructions(code)
            if any(part in name_of(instruction) for part in _POINTS) or is_shared(instruction, code)
        )
    return found


_checks: dict[CodeType, frozenset[int]] = {}


def checks_of(code: CodeType) -> frozenset[int]:
    """Return the offsets before which an exception from outside may be raised.

    CPython raises such exceptions (signals, ``PyThreadState_SetAsyncExc``) at the entry of a function, at
    backward jumps, and at the end of a call. The last is located at the call itself, but a trace function can
    only raise before the next instruction. So that instruction counts if both are in the same ``try`` or
    ``with``.
    """
    found = _checks.get(code)
    if found is None:
        bytecode = dis.Bytecode(code)
        entries = bytecode.exception_entries  # type: ignore[attr-defined]

        def handler(offset: int) -> int | None:
            return next((each.target for each in entries if each.start <= offset < each.end), None)

        offsets = set()
        instructions = list(bytecode)
        for instruction, following in itertools.pairwise(instructions):
            name, offset = instruction.opname, instruction.offset
            if "BACKWARD" in name and not name.endswith("NO_INTERRUPT"):
                offsets.add(offset)
            elif (name == "RESUME" and (instruction.arg or 0) & 3 < 2) or (
                name.startswith("CALL")
                and "INTRINSIC" not in name
                and handler(offset) == handler(following.offset)
            ):
                offsets.add(following.offset)
        found = _checks[code] = frozenset(offsets)
    return found
