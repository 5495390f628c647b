"""The base classes of conditions, which stand in a query in the place of a plain value.

Thread safety: conditions are immutable. `Condition.matches` of a user's class runs with no lock held.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

logger: logging.Logger = logging.getLogger("latchstore")

#: What decides nothing about the values that are compared: the thread is out of memory or stack.
#: CPython raises SystemError where some functions written in C get no memory.
FAULTS: tuple[type[Exception], ...] = (MemoryError, RecursionError, SystemError)


def equal(held: Any, wanted: Any) -> bool:
    """Compare two values by ``==``, which may run user code; return False if they cannot be compared.

    That is the case if ``==`` raises, or returns something that has a length and no truth value, as arrays
    do: one such value must not make the query fail for all the others.
    """
    try:
        answer = held == wanted
        return not hasattr(type(answer), "__len__") and bool(answer)
    except FAULTS:
        raise
    except Exception:
        logger.debug("a %s cannot be compared with a %s", type(held), type(wanted), exc_info=True)
        return False


def fits(value: Any, wanted: Any) -> bool:
    """Return whether a value matches a condition, or equals a plain value; exceptions as in `equal`."""
    try:
        return bool(wanted.matches(value)) if isinstance(wanted, Condition) else equal(value, wanted)
    except FAULTS:
        raise
    except Exception:
        logger.debug("a %s cannot be compared with a %s", type(value), type(wanted), exc_info=True)
        return False


class Condition(ABC):
    """A term of a query that is more than a value to compare with.

    `Above`, `Below`, `Between`, `Contains`, `In` and `Prefix` are conditions. For your own, subclass it and
    define `matches`; no index is used for those. Conditions are immutable, so threads may share them.

    Thread safety
    -------------
    Several threads may evaluate a condition at the same time. The conditions of this package never
    change; those of your own should not either.

    Examples
    --------
    >>> from latchstore import Condition, DictMemoryStore, EventManager
    >>> class Even(Condition):
    ...     def matches(self, value):
    ...         return isinstance(value, int) and value % 2 == 0
    >>> store = DictMemoryStore(EventManager())
    >>> store.multiset(list("abc"), [(b"", {"visits": visits}) for visits in (1, 2, "two")])
    >>> list(store.query_keys(visits=Even()))
    ['b']
    """

    __slots__ = ()

    @abstractmethod
    def matches(self, value: Any) -> bool:
        """Return whether the value of a metadata item matches.

        Called for each entry that has the item, in the thread that reads the result, with no lock held. An
        exception counts as no match.

        Parameters
        ----------
        value : object
            The value; a copy if it is mutable.
        """


class FrozenCondition(Condition):
    """A condition that is equal to one of the same class with the same arguments."""

    __slots__ = ()

    #: The names of the arguments, which are attributes: the positional ones, and the keywords with their
    #: defaults.
    _positional: ClassVar[tuple[str, ...]] = ()
    _keywords: ClassVar[dict[str, Any]] = {}

    def _freeze(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in (*self._positional, *self._keywords))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable, so {name} cannot be set: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable, so {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash((type(self), self._arguments()))

    def __repr__(self) -> str:
        shown = [repr(getattr(self, name)) for name in self._positional]
        for name, default in self._keywords.items():
            value = getattr(self, name)
            if value is not default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._again, (type(self), self._arguments())

    def __copy__(self) -> FrozenCondition:
        return self

    @staticmethod
    def _again(cls: type[FrozenCondition], arguments: tuple[Any, ...]) -> FrozenCondition:
        count = len(cls._positional)
        keywords = dict(zip(cls._keywords, arguments[count:], strict=True))
        return cls(*arguments[:count], **keywords)
