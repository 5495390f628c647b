"""What one thread alone would see: the models that histories are checked against."""

from __future__ import annotations

from collections.abc import Hashable

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
        result, after = _applied(operation, state)
        known = operation.outcome == "ok" and operation.name != "set"
        return () if known and operation.result != result else (after,)


def _applied(operation: Operation, state: Hashable) -> tuple[object, Hashable]:
    """Return what an operation gives, and the state that it leaves."""
    match operation.name:
        case "set":
            return None, operation.argument
        case "get":
            return state, state
        case "exists":
            return state is not None, state
        case "delete":
            return state is not None, None
        case "swap":
            expected, new = operation.argument
            return state == expected, new if state == expected else state
        case _:
            raise ValueError(f"{operation.name!r} is no operation on a key")
