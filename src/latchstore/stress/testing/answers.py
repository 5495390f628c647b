"""Answers of calls, and records of calls with their times.

Thread safety: an `Answer` is immutable; the thread that makes a call writes its `Record`.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, field
from typing import Any

from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.observed import attributes_of
from latchstore.stress.testing.program import Call

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = _repr.maxdeque = 10

#: The address of an object in its repr: it says nothing to a reader, and differs from run to run.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

#: Maximum characters of an exception in reports.
_LONGEST = 300

#: Characters before and after the first difference of two answers that are shown.
_BEFORE, _AFTER = 20, 60


@dataclass(frozen=True)
class Raised:
    """Passed to models in place of a result: the call raised an exception.

    Attributes
    ----------
    error : object
        The result of `Test.describe_error`; by default the exception's class.

    Thread safety
    -------------
    Immutable.
    """

    error: object


class _Waits:
    """The class of `WAITING`."""

    def __repr__(self) -> str:
        return "WAITING"


#: Passed to models in place of a result: the call waits forever.
WAITING = _Waits()


@dataclass(frozen=True)
class Answer:
    """The result or the exception of a call.

    Attributes
    ----------
    value : tuple
        The part that is compared: ``"returned"`` or ``"raised"``, and the test's description.
    text : str
        The text for reports.
    result : object
        The argument for models: the returned value, a `Raised`, or `WAITING`.
    """

    value: tuple[str, object]
    text: str = field(compare=False)
    result: Any = field(compare=False, default=None)

    def __str__(self) -> str:
        return self.text


#: The answer of a call that waits forever.
WAITS = Answer(("waits", None), "waits", WAITING)

#: The answer that a user's model would give; a model does not return it.
UNKNOWN_ANSWER = Answer(("unknown", None), "something else")


@dataclass
class Record:
    """A call that was made.

    Attributes
    ----------
    call : Call
    begin : int
        On the clock of the schedule; with native threads, in nanoseconds.
    end : int or None
        None if the call has not returned.
    answer : Answer
    """

    call: Call
    begin: int
    end: int | None = None
    answer: Answer = WAITS

    def overlaps(self, other: Record) -> bool:
        """Return whether both calls overlapped."""
        return (self.end is None or other.begin < self.end) and (other.end is None or self.begin < other.end)

    def __str__(self) -> str:
        return f"{self.call} -> {self.answer}"


@dataclass(frozen=True)
class Break:
    """The place where the longest order breaks.

    Attributes
    ----------
    order : tuple of Call
        The calls that it explains.
    call : Call or None
        The next call; None if only the final state differs.
    expected, got : Answer
        The answer in one thread there, and the answer of the run.
    states : tuple of str
        As text: the state before the first of these calls, and after each; empty if unknown.
    """

    order: tuple[Call, ...]
    call: Call | None
    expected: Answer
    got: Answer
    states: tuple[str, ...] = ()


def shown(value: object) -> str:
    """Return a short text of a value for reports."""
    return _ADDRESS.sub("", _repr.repr(value))


def _is_plain(value: object) -> bool:
    kind = type(value)
    return kind.__module__ in ("builtins", "collections") and kind is not object and not callable(value)


def answer_of(test: Definition, call: Call, subject: Any) -> Answer:
    """Make a call on an object, and return its answer."""
    try:
        result = call.on(test, subject)
    except (Exception, SystemExit) as error:
        return answer_or_error(test, error=error)
    return answer_or_error(test, result)


def answer_or_error(test: Definition, result: Any = None, error: BaseException | None = None) -> Answer:
    """Return a result or an exception as an answer."""
    if error is None:
        return Answer(("returned", test.describe(result)), shown(result), result)
    described = test.describe_error(error)
    text = f"raises {type(error).__name__}"
    text = f"{text}: {error}" if str(error) else text
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return Answer(("raised", described), text, Raised(described))


def told_apart(one: Answer, other: Answer) -> tuple[str, str]:
    """Return the texts of two different answers; if these are equal, what differs in the whole ones."""
    if one.text != other.text:
        return one.text, other.text
    first, second = repr(one.value[1]), repr(other.value[1])
    pairs = enumerate(zip(first, second, strict=False))
    place = next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))
    begin = max(0, place - _BEFORE)
    cut = [
        f"{'...' if begin else ''}{text[begin : place + _AFTER]}{'...' if len(text) > place + _AFTER else ''}"
        for text in (first, second)
    ]
    return f"{one.text}, in it {cut[0]}", f"the same with {cut[1]}"


def state_of(test: Definition, subject: Any) -> Answer:
    """Return the final state of an object, as an answer."""
    state = test.state(subject)
    return Answer(("returned", test.describe(state)), shown(state))


def shown_state(test: Definition, subject: Any) -> Answer:
    """Return the state of an object for reports: its attributes, if the test defines no state."""
    try:
        if test.state(subject) is not None:
            return state_of(test, subject)
    except Exception:  # a state may be invalid between two calls
        return Answer(("returned", None), "")
    attributes = (
        f"{name}={shown(value)}"
        for name, value in (attributes_of(subject) or {}).items()
        if _is_plain(value) and not name.startswith("__")
    )
    return Answer(("returned", None), ", ".join(attributes))
