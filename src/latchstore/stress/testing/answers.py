"""What calls gave: answers, and records of calls with their times.

Thread safety: an `Answer` does not change; a `Record` is written by the thread that makes the call.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import Any

from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.observed import attributes_of
from latchstore.stress.testing.program import Call

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = _repr.maxdeque = 10


@dataclass(frozen=True)
class Raised:
    """In the place of a result, for models: the call raised something.

    Attributes
    ----------
    error : object
        What `Test.describe_error` returns of it; by default its class.

    Thread safety
    -------------
    Immutable.
    """

    error: object


class _Waits:
    """The class of `WAITING`."""

    def __repr__(self) -> str:
        return "WAITING"


#: In the place of a result, for models: the call waits for ever.
WAITING = _Waits()


@dataclass(frozen=True)
class Answer:
    """What a call returned or raised.

    Attributes
    ----------
    value : tuple
        What is compared: ``"returned"`` or ``"raised"``, and what the test describes it by.
    text : str
        For people.
    result : object
        What models get: what was returned, a `Raised`, or `WAITING`.
    """

    value: tuple[str, object]
    text: str = field(compare=False)
    result: Any = field(compare=False, default=None)

    def __str__(self) -> str:
        return self.text


#: The answer of a call that waits for ever.
WAITS = Answer(("waits", None), "waits", WAITING)

#: What a model of the user's would give, which it does not tell.
UNKNOWN_ANSWER = Answer(("unknown", None), "something else")


@dataclass
class Record:
    """A call that was made.

    Attributes
    ----------
    call : Call
    begin : int
        On the clock of the schedule; of native threads, nanoseconds.
    end : int or None
        None if it has not returned.
    answer : Answer
    """

    call: Call
    begin: int
    end: int | None = None
    answer: Answer = WAITS

    def overlaps(self, other: Record) -> bool:
        """Tell whether both ran at one time."""
        return (self.end is None or other.begin < self.end) and (other.end is None or self.begin < other.end)

    def __str__(self) -> str:
        return f"{self.call} -> {self.answer}"


@dataclass(frozen=True)
class Break:
    """Where the order that explains most breaks.

    Attributes
    ----------
    order : tuple of Call
        The calls that agree.
    call : Call or None
        The next one; None if the final state is what differs.
    expected, got : Answer
        What one thread gives there, and what the run gave.
    states : tuple of str
        For people: the state before the first of the calls that agree, and after each; empty if unknown.
    """

    order: tuple[Call, ...]
    call: Call | None
    expected: Answer
    got: Answer
    states: tuple[str, ...] = ()


def answer_of(test: Definition, call: Call, subject: Any) -> Answer:
    """Make a call on an object, and return what it gave."""
    try:
        result = call.on(test, subject)
    except (Exception, SystemExit) as error:
        return answer_or_error(test, error=error)
    return answer_or_error(test, result)


def answer_or_error(test: Definition, result: Any = None, error: BaseException | None = None) -> Answer:
    """Return a result, or what was raised, as an answer."""
    if error is None:
        return Answer(("returned", test.describe(result)), _repr.repr(result), result)
    described = test.describe_error(error)
    text = f"raises {type(error).__name__}"
    return Answer(("raised", described), f"{text}: {error}" if str(error) else text, Raised(described))


def state_of(test: Definition, subject: Any) -> Answer:
    """Return the final state of an object, as an answer."""
    state = test.state(subject)
    return Answer(("returned", test.describe(state)), _repr.repr(state))


def shown_state(test: Definition, subject: Any) -> Answer:
    """Return the state of an object for people, as an answer: its attributes if the test names no state."""
    try:
        if test.state(subject) is not None:
            return state_of(test, subject)
    except Exception:  # what is right at the end need not be between two calls
        return Answer(("returned", None), "")
    shown = (
        f"{name}={_repr.repr(value)}"
        for name, value in (attributes_of(subject) or {}).items()
        if type(value).__module__ in ("builtins", "collections") and not callable(value)
    )
    return Answer(("returned", None), ", ".join(shown))
