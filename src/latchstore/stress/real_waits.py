"""Detects and describes threads that block on something outside the scheduler's control.

Only one thread of a run executes at a time. If it stays in the same call for a second and uses no processor
time, it is blocked; the scheduler then ends the run, as nothing else would. So it is if it stays there for
longer, and uses hardly any: C code may wait by short sleeps, as SQLite does for a lock on a file.

Thread safety: called by a thread outside the run. It reads frames of threads that are stopped, and evaluates
only names, attributes and items of builtin containers.
"""

from __future__ import annotations

import _thread
import ast
import dis
import linecache
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from inspect import getattr_static
from itertools import islice
from pathlib import Path
from queue import Queue, SimpleQueue
from types import FrameType, MemberDescriptorType, ModuleType

from latchstore.contract.frames import frames_of_threads
from latchstore.stress.lock_order import frame_outside, place_of

#: Seconds between two checks of a run.
LOOK_EVERY = 0.15

#: Checks after which a thread that is still in the same call counts as blocked.
_LOOKS = 5

#: Checks, and the share of processor time, of a thread that waits by short sleeps.
_LOOKS_AT_SLEEPS, _SHARE = 12, 0.1

#: Seconds of processor time that a blocked thread may use: the precision of the clock.
_IDLE = 0.02

_SCHEDULER = "latchstore.stress.scheduler"

#: Which locks the scheduler replaces, if they are found.
_REPLACEABLE = (
    _thread.LockType,
    _thread.RLock,
    SimpleQueue,
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Barrier,
    Queue,
)

_NOTHING = object()


class RealWaitWatch:
    """Checks the thread that has the turn, repeatedly."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._looks = 0
        # The call of the thread at the last checks, and the real and processor time at the first of these.
        self._call: tuple[object, ...] = ()
        self._begin = self._used = 0.0
        self._looks_at_call = 0

    def is_blocked(self, ident: int, native: int, now: int, looks: int = _LOOKS) -> bool:
        """Return whether a thread was in the same call for this many checks, at the same point of the run."""
        frame = frames_of_threads().get(ident)
        asleep = _sleep_of(ident, native)
        if frame is None or asleep is None or frame.f_globals.get("__name__") == _SCHEDULER:
            self._last = self._call = ()
            return False
        call = (ident, now, id(frame), frame.f_lasti)
        seen = (*call, asleep)
        self._looks = self._looks + 1 if seen == self._last else 0
        self._last = seen
        return self._looks >= looks or self._naps(call, ident)

    def _naps(self, call: tuple[object, ...], ident: int) -> bool:
        """Return whether a thread slept in one call at many checks, and used hardly any processor time."""
        used = _processor_time(ident)
        if used is None:
            return False
        if call != self._call:
            self._call, self._begin, self._used, self._looks_at_call = call, time.monotonic(), used, 0
        self._looks_at_call += 1
        elapsed = time.monotonic() - self._begin
        return self._looks_at_call > _LOOKS_AT_SLEEPS and used - self._used < _SHARE * elapsed


def _sleep_of(ident: int, native: int) -> object:
    """Return an identifier of a thread's present sleep; None if it is awake.

    A thread that waits for a free processor is awake. A thread that waits for the GIL wakes up every few
    milliseconds.
    """
    try:
        status = Path(f"/proc/self/task/{native}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        used = _processor_time(ident)  # not on Linux
        return None if used is None else round(used / _IDLE)
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if fields.get("State", " R").strip()[:1] not in "SD":
        return None
    return fields.get("voluntary_ctxt_switches"), fields.get("nonvoluntary_ctxt_switches")


def _processor_time(ident: int) -> float | None:
    """Return the processor time of a thread, in seconds; None where the system does not provide it."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(ident))
    except OSError:
        return None


def describe_wait(name: str, ident: int, own: FrameType | None, others: Mapping[str, int | None]) -> str:
    """Return a text: what a thread waits for, where, and which thread holds it.

    Parameters
    ----------
    name, ident : str and int
        Of the thread.
    own : frame or None
        Its innermost frame in the code under test: a lock is named as it is there.
    others : mapping
        Identifiers of the other threads of the run, by name.
    """
    frames = frames_of_threads()
    innermost = frame_outside(frames.get(ident))
    if innermost is None:
        return f"{name} waits for something outside control"
    found = ((frame, *found) for frame in (own, innermost) if frame for found in _candidates(frame))
    frame, text, lock = next(found, (own or innermost, "", None))
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    place = f"{place_of(frame)}: {line}"
    if lock is None:
        return (
            f"{name} waits in a call outside control, at {place}\nwhat it waits for cannot be replaced: let "
            "the object under test do without it, such as by a lock of threading in its place"
        )
    holder = _holder(lock, {each: frames.get(other or 0) for each, other in others.items()}, others)
    advice = (
        "threads switch only in the code under test, and the lock of this code is not cooperative: add its "
        "module to the modules under test"
        if isinstance(lock, _REPLACEABLE)
        else f"a {type(lock).__name__} of {type(lock).__module__} cannot be replaced: use one of threading "
        "in its place"
    )
    what = f"a real {type(lock).__name__}, {_name_of(lock) or text}, at {place}"
    return f"{name} waits for {what}\nheld by {holder or 'an unknown thread'}; {advice}"


def _candidates(frame: FrameType) -> Iterator[tuple[str, object]]:
    """Yield the source and the object that a frame may wait for, the most probable first."""
    text = _text_at(frame)
    expressions = [text] if text else []
    for node in _withs(frame):
        if node.lineno <= frame.f_lineno < node.body[0].lineno:
            expressions.extend(ast.unparse(item.context_expr) for item in node.items)
    for expression in expressions:
        found = _receiver(expression, frame)
        if hasattr(found, "acquire") or hasattr(found, "wait"):
            locked = getattr(found, "locked", None)
            if locked is None or len(expressions) == 1 or locked():
                yield expression, found


def _text_at(frame: FrameType) -> str:
    """Return the source of the expression at which a frame is."""
    positions = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is None or None in positions or positions[0] != positions[1]:
        return ""
    line, _, begin, end = positions
    assert line is not None
    return linecache.getline(frame.f_code.co_filename, line).encode()[begin:end].decode(errors="replace")


def _receiver(text: str, frame: FrameType) -> object:
    """Return the object whose method an expression calls, otherwise the object that it names."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None
    if isinstance(node, ast.Call):
        node = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    found = _value(node, frame)
    return None if found is _NOTHING else found


def _value(node: ast.expr, frame: FrameType) -> object:
    """Return the value of a name, or of an attribute, without running code."""
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals):
            if node.id in names:
                return names[node.id]
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        found = _NOTHING if owner is _NOTHING else getattr_static(owner, node.attr, _NOTHING)
        return found.__get__(owner) if isinstance(found, MemberDescriptorType) else found
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        container = _value(node.value, frame)
        if type(container) in (dict, list, tuple):
            try:
                return container[node.slice.value]  # type: ignore[index]
            except LookupError:
                pass
    return _NOTHING


def _name_of(lock: object) -> str | None:
    """Return the global name of a lock in a module."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if value is lock:
                    return f"{module.__name__}.{name}"
    return None


def _holder(
    lock: object, frames: Mapping[str, FrameType | None], idents: Mapping[str, int | None]
) -> str | None:
    """Return the thread that holds a lock, and where: from its repr, or from a thread's ``with``."""
    owner = re.search(r"owner=(\d+)", repr(lock)) if type(lock).__module__ == "_thread" else None
    for name, frame in frames.items():
        if owner is not None and idents[name] == int(owner[1]):
            return f"{name}, at {place_of(frame_outside(frame))}"
        while frame is not None:
            for node in _withs_around(frame):
                if any(_value(item.context_expr, frame) is lock for item in node.items):
                    file = Path(frame.f_code.co_filename).name
                    return f"{name}, which is at {place_of(frame)} in the 'with' of {file}:{node.lineno}"
            frame = frame.f_back
    return None


def _withs_around(frame: FrameType) -> Iterator[ast.With]:
    """Yield the ``with`` statements that a frame has entered and not left."""
    entered = [
        each.offset
        for each in dis.get_instructions(frame.f_code)
        if each.opname in ("BEFORE_WITH", "LOAD_SPECIAL")
    ]
    has_entered = any(offset < frame.f_lasti for offset in entered)
    for node in _withs(frame):
        first = node.lineno if has_entered else node.body[0].lineno
        if first <= frame.f_lineno <= (node.end_lineno or 0):
            yield node


def _withs(frame: FrameType) -> Iterator[ast.With]:
    """Yield the ``with`` statements of a frame's function, and of later functions in its file."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and node.lineno >= frame.f_code.co_firstlineno:
            yield node
