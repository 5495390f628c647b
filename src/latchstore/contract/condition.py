"""What a term of a query may be besides a plain value.

Thread safety: conditions never change. `Condition.matches` of users' own runs with no lock held.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

logger: logging.Logger = logging.getLogger("latchstore")


def equal(held: Any, wanted: Any) -> bool:
    """Compare two values, whose own ``==`` may run; false if they cannot be compared.

    That is if ``==`` raises something, or gives what has a length and is no truth value, as that of an array
    does: one such value is to fail no query for all others.
    """
    try:
        answer = held == wanted
        return not hasattr(type(answer), "__len__") and bool(answer)
    except (MemoryError, RecursionError):
        raise  # nothing is known of the values: this thread has no room
    except Exception:
        logger.debug("a %s cannot be compared with a %s", type(held), type(wanted), exc_info=True)
        return False


class Condition(ABC):
    """A term of a query that is more than a value to be equal to.

    `Above`, `Below`, `Between`, `Contains`, `In` and `Prefix` are conditions. One of your own is a subclass
    with `matches`; no index answers it. A condition never changes: others may share it.

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
        """Tell whether the value of a metadata item is meant.

        It is called for each entry that has the item, in the thread that reads the answer, with no lock held.
        What it raises counts as no match.

        Parameters
        ----------
        value : object
            The value; a copy, if it can be changed.
        """


class FrozenCondition(Condition):
    """A condition that is made of arguments, and equal to one of the same class with the same arguments."""

    __slots__ = ()

    #: The names of the arguments, which are attributes; positional, and then keywords with what they are
    #: if they are not given.
    _positional: ClassVar[tuple[str, ...]] = ()
    _keywords: ClassVar[dict[str, Any]] = {}

    def _freeze(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in (*self._positional, *self._keywords))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make another one")

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
