"""What one thread alone would see: the models that histories are checked against."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from latchstore.stress.history import Operation


class KeyModel:
    """One key of a store. Its state is the value, None if there is no key.

    ========= ================================= ======================================
    operation argument                          result
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

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        """Return the state after the operation, if its result is what the state before allows.

        Raises
        ------
        ValueError
            If it is none of the operations above.
        """
        result, after = _applied(operation.name, operation.argument, state)
        known = operation.outcome == "ok" and operation.name != "set"
        return () if known and operation.result != result else (after,)


class StoreModel:
    """Several keys. Its state is the set of pairs of a key and its value.

    The argument of an operation is a list of steps, each the name, the key and the argument of an operation
    of `KeyModel`; its result is the list of their results. All of its steps happen at once.
    """

    initial: Hashable = frozenset()

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        """Return the state after the operation, if its results are what the state before allows."""
        assert isinstance(state, frozenset)
        values: dict[str, Hashable] = dict(state)
        results = replayed(values, operation)
        if operation.outcome == "ok" and results != operation.result:
            return ()
        return (frozenset(values.items()),)


def replayed(values: dict[str, Hashable], operation: Operation) -> list[object]:
    """Do the steps of an operation to the values of keys; return the results."""
    results: list[object] = []
    for name, key, argument in operation.argument:
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
