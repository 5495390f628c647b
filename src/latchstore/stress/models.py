"""Models: sequential specifications that histories are checked against.

A model is any object with an attribute ``initial`` and a method ``step``, see `Model`. More methods are
optional: ``part`` (see `HasParts`), ``is_read`` (`HasReads`), ``may_answer`` (`HasOutlook`), ``expected``
(`HasAnswers`), ``overwrites`` (`HasOverwrites`), ``requires`` and ``gives`` (`HasSources`).

Thread safety: a model has no state of its own; states are arguments and results.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeVar

from latchstore.stress.history import Invocation


class Mark(Enum):
    """Stands for an answer or a state that does not exist."""

    UNKNOWN = "unknown"
    REFUSED = "refused"


#: The answer of a call whose result is unknown: any result is allowed.
UNKNOWN: Final = Mark.UNKNOWN

#: Returned by `Model.step` instead of a state, if the operation cannot have that answer in that state.
REFUSED: Final = Mark.REFUSED

State = TypeVar("State")
Asked = TypeVar("Asked", contravariant=True)
Answered = TypeVar("Answered", contravariant=True)


class Model(Protocol[State, Asked, Answered]):
    """A sequential specification.

    A state may be of any type. It is never mutated: `step` returns a new one. Hashable states, compared by
    value, make the search fast; others are compared by ``==`` one by one.

    Attributes
    ----------
    initial : object
        The initial state.

    Thread safety
    -------------
    A model has no state of its own: states are arguments and results. One thread calls it.
    """

    @property
    def initial(self) -> State: ...

    def step(
        self, state: State, operation: Asked, answer: Answered | Literal[Mark.UNKNOWN]
    ) -> State | Literal[Mark.REFUSED]:
        """Return the state after an operation, or `REFUSED` if it cannot have that answer.

        Parameters
        ----------
        state : object
            The state before the operation.
        operation : object
            The call; for histories an object with ``name``, ``key`` and ``argument``.
        answer : object
            The result; `UNKNOWN` if it is not known: then any result that the state allows.
        """


class HasParts(Protocol):
    """A model whose operations act on independent parts, such as keys.

    Each part is checked by itself, starting from `Model.initial`, which is faster by orders of magnitude.
    """

    def part(self, operation: Any) -> Hashable:
        """Return the part that an operation acts on."""


class HasReads(Protocol):
    """A model that identifies operations which leave every state unchanged, which shortens searches."""

    def is_read(self, operation: Any, answer: Any) -> bool:
        """Return whether an operation leaves every state that allows its answer unchanged."""


class HasOutlook(Protocol):
    """A model that identifies impossible answers, which shortens searches."""

    def may_answer(self, state: Any, operation: Any, answer: Any) -> bool:
        """Return whether an operation may have an answer now or after others; True if unknown."""


class HasAnswers(Protocol):
    """A model that knows answers, for messages about wrong ones."""

    def expected(self, state: Any, operation: Any) -> Any:
        """Return the answer of an operation in a state."""


class HasOverwrites(Protocol):
    """A model that identifies operations which overwrite the state: less of a history has to be shown."""

    def overwrites(self, operation: Any) -> bool:
        """Return whether the state after an operation is the same after every state before."""


class HasSources(HasOverwrites, Protocol):
    """A model that knows the states of calls: searches with many calls at a time take far less time."""

    def requires(self, operation: Any, answer: Any) -> Any:
        """Return the only state in which an operation can have an answer; UNKNOWN if there may be others."""

    def gives(self, operation: Any, answer: Any) -> Any:
        """Return the state after an operation with an answer; UNKNOWN for one that changes nothing.

        It is UNKNOWN as well if it depends on more than that; then the search does without.
        """


class KeyModel:
    """One key of a store. Its state is the value, None if the key is missing.

    ========= ================================= ======================================
    operation argument                          answer
    ========= ================================= ======================================
    set       the value                         anything
    get       anything                          the value, None if there was none
    exists    anything                          whether there was one
    delete    anything                          whether there was one
    swap      a pair: what is expected (None    whether it was there, and so was
              for no key), and the new value    replaced
    ========= ================================= ======================================

    Parameters
    ----------
    initial : hashable
        The initial value.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self.initial = initial

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, or `REFUSED` if its answer does not fit the state before.

        Raises
        ------
        ValueError
            If the operation is not listed above.
        """
        result, after = _applied(operation.name, operation.argument, state)
        known = answer is not UNKNOWN and operation.name != "set"
        return REFUSED if known and answer != result else after

    def expected(self, state: Hashable, operation: Invocation) -> object:
        """Return the result of the operation."""
        return _applied(operation.name, operation.argument, state)[0]

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the key unchanged."""
        return operation.name in ("get", "exists") or (
            operation.name in ("delete", "swap") and answer is not UNKNOWN and not answer
        )


class StoreModel:
    """Several keys. Its state is the set of pairs of a key and its value.

    The argument of an operation is a list of steps, each the name, the key and the argument of an operation
    of `KeyModel`; its answer is the list of their results. Its steps are one atomic operation.
    """

    initial: Hashable = frozenset()

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, or `REFUSED` if its results do not fit the state before."""
        assert isinstance(state, frozenset)
        values: dict[str, Hashable] = dict(state)
        results = replayed(values, operation.argument)
        if answer is not UNKNOWN and results != answer:
            return REFUSED
        return frozenset(values.items())

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves all keys unchanged."""
        return all(name in ("get", "exists") for name, _, _ in operation.argument)


def replayed(values: dict[str, Hashable], steps: Sequence[Any]) -> list[object]:
    """Apply the steps of an operation to the values of keys; return the results."""
    results: list[object] = []
    for name, key, argument in steps:
        result, after = _applied(name, argument, values.get(key))
        results.append(result)
        if after is None:
            values.pop(key, None)
        else:
            values[key] = after
    return results


def _applied(name: str, argument: Any, state: Hashable) -> tuple[object, Hashable]:
    """Return the result of an operation, and the state after it."""
    match name:
        case "set":
            return None, argument
        case "get":
            return state, state
        case "exists":
            return state is not None, state
        case "delete":
            return state is not None, None
        case "swap":
            expected, new = argument
            return state == expected, new if state == expected else state
        case _:
            raise ValueError(f"{name!r} is not an operation on a key")
