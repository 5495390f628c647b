"""Where CPython raises: the table of places, one row a version.

The interpreter looks for exceptions from outside (signals, ``PyThreadState_SetAsyncExc``) where it reads its
"eval breaker": at the end of an instruction that has called something written in C, on entry of a Python
function, and at a jump backward. `CHECKS` names the instructions; `test_interrupt_places.py` measures them.
What is raised there has the place of the instruction itself, the exception table included: the end of the
call in ``with lock:`` belongs to no ``with``, and the call in ``try: return f()`` belongs to the ``try``.

MemoryError comes from an instruction that asks for memory, before it has done anything (`ALLOCATIONS`), or
out of a call. Instructions that ask for none in the cases that matter, such as loading a method or storing an
attribute that is there, are not among them: the judge that has real requests fail finds the others.
"""

from __future__ import annotations

import dis
import functools
import sys
from types import CodeType, FrameType

#: The instructions that may enter the handler of exceptions from outside when they end. Those of 3.11 are
#: more because its specialised PRECALL and COMPARE_OP do the work of the instruction that follows them.
CHECKS: dict[tuple[int, int], frozenset[str]] = {
    (3, 11): frozenset(
        {
            "PRECALL",
            "CALL",
            "CALL_FUNCTION_EX",
            "COMPARE_OP",
            "JUMP_BACKWARD",
            "POP_JUMP_BACKWARD_IF_TRUE",
            "POP_JUMP_BACKWARD_IF_FALSE",
            "POP_JUMP_BACKWARD_IF_NONE",
            "POP_JUMP_BACKWARD_IF_NOT_NONE",
        }
    ),
    (3, 12): frozenset({"CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}),
    (3, 13): frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}),
    # The beginning of a `with` is a CALL like any other there; see contract/with_lock.py.
    (3, 14): frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}),
    # That CALL does not check: one right after the LOAD_SPECIAL that has looked up `__enter__`.
    (3, 15): frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}),
}

#: On entry of a function, and when a generator goes on after ``yield``.
ENTRY = "RESUME"

#: What its argument is then; others come after ``yield from`` and ``await``, where nothing is looked for.
_CHECKED_ENTRIES = (0, 1)

#: How the names of instructions begin that ask for memory.
ALLOCATIONS = (
    "BEFORE_WITH",
    "BINARY_OP",
    "BINARY_SLICE",
    "BUILD_",
    "DICT_MERGE",
    "DICT_UPDATE",
    "FORMAT_",
    "GET_ITER",
    "LIST_APPEND",
    "LIST_EXTEND",
    "MAKE_CELL",
    "MAKE_FUNCTION",
    "MAP_ADD",
    "SET_ADD",
    "SET_UPDATE",
    "STORE_SUBSCR",
    "UNPACK_EX",
)


def checks_of_this_python() -> frozenset[str]:
    """Return the names of the instructions that check, for the version that runs."""
    return CHECKS[min(sys.version_info[:2], max(CHECKS))]


@functools.cache
def checks(code: CodeType) -> frozenset[int]:
    """Return where code checks for exceptions from outside, entries aside."""
    names = checks_of_this_python()
    instructions = list(dis.get_instructions(code))
    found = set()
    previous = ""
    for each, following in zip(instructions, [*instructions[1:], None], strict=True):
        if each.opname == "COMPARE_OP":  # does so with the jump that it takes along
            checking = following is not None and "BACKWARD" in following.opname
        else:
            checking = sys.version_info < (3, 15) or (previous, each.opname) != ("LOAD_SPECIAL", "CALL")
        if checking and each.opname in names:
            found.add(each.offset)
        previous = each.opname
    return frozenset(found)


@functools.cache
def allocations(code: CodeType) -> frozenset[int]:
    """Return where code asks for memory."""
    return frozenset(
        each.offset for each in dis.get_instructions(code) if each.opname.startswith(ALLOCATIONS)
    )


def is_entry(frame: FrameType, first: bool = False) -> bool:
    """Tell whether a frame that a trace is called for is at an entry that checks.

    Parameters
    ----------
    first : bool
        Whether only the beginning of the function counts: there the recursion limit is looked at.
    """
    code, place = frame.f_code.co_code, frame.f_lasti
    if place < 0 or dis.opname[code[place]] != ENTRY:
        return False
    kind = code[place + 1] & 3
    return kind == 0 if first else kind in _CHECKED_ENTRIES
