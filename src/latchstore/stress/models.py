"""What one thread alone would get: the models that histories are checked against.

A model is any object with an attribute ``initial`` and a method ``step``, see `Model`. Three more methods
are used if a model has them: ``part`` (see `HasParts`), ``is_read`` (`HasReads`), ``may_answer``
(`HasOutlook`).

Thread safety: a model holds no state of its own; states are handed in and returned.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable

from latchstore.stress.history import Invocation


class Mark(Enum):
    """What stands for an answer or a state that there is not."""

    UNKNOWN = "unknown"
    REFUSED = "refused"


#: The answer of a call of which nobody knows what it returned: whatever it was is allowed.
UNKNOWN: Final = Mark.UNKNOWN

#: What `Model.step` returns instead of a state, if the operation cannot have had that answer in that state.
REFUSED: Final = Mark.REFUSED

State = TypeVar("State")
Asked = TypeVar("Asked", contravariant=True)
Answered = TypeVar("Answered", contravariant=True)


class Model(Protocol[State, Asked, Answered]):
    """What one thread alone would get.

    A state may be of any type. It is never changed: `step` returns another one. Hashable states, equal
    by value, make the search fast; others are compared by ``==`` one by one.

    Attributes
    ----------
    initial : object
        The state at the beginning.
    """

    @property
    def initial(self) -> State: ...

    def step(
        self, state: State, operation: Asked, answer: Answered | Literal[Mark.UNKNOWN]
    ) -> State | Literal[Mark.REFUSED]:
        """Return the state after an operation, or `REFUSED` if it cannot have had that answer.

        Parameters
        ----------
        state : object
            The state before it.
        operation : object
            What was called: of histories an `Invocation`, with ``name``, ``key`` and ``argument``.
        answer : object
            What it returned; `UNKNOWN` if nobody knows: then it was whatever that state allows.
        """


@runtime_checkable
class HasParts(Protocol):
    """A model whose operations are on parts that have nothing to do with each other, such as keys.

    Each part is checked by itself, from the state `Model.initial` on, which takes less time by orders.
    """

    def part(self, operation: Any) -> Hashable:
        """Return the part that an operation is on."""


@runtime_checkable
class HasReads(Protocol):
    """A model that knows which operations leave every state as it is. Searches are shorter by that."""

    def is_read(self, operation: Any, answer: Any) -> bool:
        """Tell whether an operation with that answer leaves every state that allows the answer as it is."""


@runtime_checkable
class HasOutlook(Protocol):
    """A model that knows which answers are out of reach. Searches are shorter by that."""

    def may_answer(self, state: Any, operation: Any, answer: Any) -> bool:
        """Tell whether an operation may have an answer now, or after others; True if that is not known."""


class KeyModel:
    """One key of a store. Its state is the value, None if there is no key.

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
        The value at the beginning.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self.initial = initial

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, if its answer is what the state before allows.

        Raises
        ------
        ValueError
            If it is none of the operations above.
        """
        result, after = _applied(operation.name, operation.argument, state)
        known = answer is not UNKNOWN and operation.name != "set"
        return REFUSED if known and answer != result else after

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Tell whether the key is left as it is."""
        return operation.name in ("get", "exists") or (
            operation.name in ("delete", "swap") and answer is not UNKNOWN and not answer
        )


class StoreModel:
    """Several keys. Its state is the set of pairs of a key and its value.

    The argument of an operation is a list of steps, each the name, the key and the argument of an operation
    of `KeyModel`; its answer is the list of their results. All of its steps happen at once.
    """

    initial: Hashable = frozenset()

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the state after the operation, if its results are what the state before allows."""
        assert isinstance(state, frozenset)
        values: dict[str, Hashable] = dict(state)
        results = replayed(values, operation.argument)
        if answer is not UNKNOWN and results != answer:
            return REFUSED
        return frozenset(values.items())

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Tell whether all keys are left as they are."""
        return all(name in ("get", "exists") for name, _, _ in operation.argument)


def replayed(values: dict[str, Hashable], steps: Sequence[Any]) -> list[object]:
    """Do the steps of an operation to the values of keys; return the results."""
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
    """Return what an operation gives, and the state that it leaves."""
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
            raise ValueError(f"{name!r} is no operation on a key")
