"""The definition of a test: the object under test, its operations and invariants.

Thread safety: a `Definition` has no state of its own; threads of a run call its methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from latchstore.stress.testing.arguments import checked_values
from latchstore.stress.testing.observed import observed

if TYPE_CHECKING:
    from latchstore.stress.models import Model

F = TypeVar("F", bound=Callable[..., Any])

#: The attributes that `operation` and `invariant` set on a function.
_OPERATION = "_latchstore_operation"
_INVARIANT = "_latchstore_invariant"


@dataclass(frozen=True)
class OperationSpec:
    """An operation of a test.

    Attributes
    ----------
    name : str
        Name of the method.
    sources : dict
        The strategy or tuple of values for each argument.
    blocking : bool
        Whether it is declared as one that may block.
    is_async : bool
        Whether it is a coroutine function.
    """

    name: str
    sources: dict[str, object]
    blocking: bool = False
    is_async: bool = False


def operation(*misplaced: object, **arguments: object) -> Callable[[F], F]:
    """Declare a method of a `Test` as an operation that threads call: ``@operation(item=[1, 2, 3])``.

    The method gets the object under test and the arguments; its result or exception is compared. It may be a
    coroutine function: then the test's operations are tasks of one event loop.

    Parameters
    ----------
    **arguments : strategy or iterable
        Possible values of each argument after the object under test: a strategy of Hypothesis, or a list, a
        range, a tuple of values. Each call gets a copy.

    Raises
    ------
    TypeError
        If it is used without parentheses, or values are given without a name.

    Examples
    --------
    >>> from latchstore.stress import Test, operation
    >>> class CounterTest(Test):
    ...     def make(self):
    ...         return []
    ...
    ...     @operation(item=[1, 2])
    ...     def append(self, subject, item):
    ...         subject.append(item)
    """
    return _declared("operation", misplaced, arguments, blocking=False)


def blocking_operation(*misplaced: object, **arguments: object) -> Callable[[F], F]:
    """Declare an operation that may wait for another thread; otherwise like `operation`.

    The scheduler detects such operations without a declaration. Native threads do not call declared ones, as
    only a timeout could detect that they wait.
    """
    return _declared("blocking_operation", misplaced, arguments, blocking=True)


def _declared(
    decorator: str, misplaced: tuple[object, ...], arguments: dict[str, object], *, blocking: bool
) -> Callable[[F], F]:
    if misplaced:
        raise TypeError(
            f"write @{decorator}() with parentheses, and the values of each argument by its name: "
            f"@{decorator}(key=['a', 'b'])"
        )

    def declare(method: F) -> F:
        setattr(method, _OPERATION, (arguments, blocking))
        return method

    return declare


def invariant() -> Callable[[F], F]:
    """Declare a method of a `Test` as an invariant of the object under test: ``@invariant()``.

    It gets the object when no operation runs, between two operations or at the end. It fails if it raises an
    exception, such as AssertionError, or returns False.
    """

    def declare(method: F) -> F:
        setattr(method, _INVARIANT, True)
        return method

    return declare


class Definition:
    """The definition of a test; users subclass `Test`, which documents the attributes."""

    #: Keeps pytest from collecting this class itself where a test module imports it.
    __test__: ClassVar[bool] = False

    threads: ClassVar[int] = 3
    operations: ClassVar[int] = 3
    seconds: ClassVar[float] = 10.0
    schedules: ClassVar[int | None] = None
    seed: ClassVar[int] = 0
    modules: ClassVar[Sequence[str]] = ()
    model: ClassVar[Model[Any, Any, Any] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse operations with names that this class uses itself, such as ``run`` or ``state``."""
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if hasattr(value, _OPERATION) and any(hasattr(base, name) for base in _own_bases(cls)):
                raise TypeError(
                    f"{cls.__qualname__}.{name} cannot be an operation, as Test uses this name itself: "
                    f"name it do_{name}, for example"
                )

    def make(self) -> Any:
        """Return a new object under test; called by one thread."""
        raise NotImplementedError(
            f"{type(self).__qualname__} has no make(): define it, and return the object under test"
        )

    def reference(self) -> Any:
        """Return a new object for sequential orders of the calls, used by one thread; by default `make()`.

        It may be of a simpler class with the correct answers.
        """
        return self.make()

    def setup(self, subject: Any) -> None:
        """Prepare an object of `make` or `reference`, before any operation; called by one thread."""

    def state(self, subject: Any) -> object:
        """Return the final state to compare, when all operations have returned; None for nothing.

        By default that is the contents of a collection (an object with a length that can be iterated over).
        """
        if hasattr(type(subject), "__len__") and hasattr(type(subject), "__iter__"):
            return dict(subject) if hasattr(type(subject), "keys") else list(subject)
        return None

    def validate(self, subject: Any) -> None:
        """Check the object of `make` when all operations have returned; an exception is a failure."""

    def teardown(self, subject: Any) -> None:
        """Close an object of `make` or `reference`, at the end."""

    def describe(self, result: Any) -> object:
        """Return a comparable description of an operation's result.

        By default values are compared by their contents: numbers, strings, containers, and other objects by
        class and attributes.
        """
        return observed(result)

    def describe_error(self, error: BaseException) -> object:
        """Return a comparable description of an operation's exception; by default its class."""
        return type(error)


def _own_bases(cls: type) -> list[type]:
    """Return the bases of a test that are not users' classes."""
    return [base for base in cls.__mro__ if base.__module__.startswith("latchstore.stress.")]


def has_operations(kind: type[Definition]) -> bool:
    """Return whether a test declares operations."""
    return any(hasattr(method, _OPERATION) for _, method in inspect.getmembers(kind, callable))


def operations_of(kind: type[Definition]) -> list[OperationSpec]:
    """Return the operations of a test, by name.

    Raises
    ------
    TypeError, ValueError
        If there are none, or if arguments do not match the method.
    """
    found = []
    for name, method in inspect.getmembers(kind, callable):
        declared = getattr(method, _OPERATION, None)
        if declared is not None:
            arguments, blocking = declared
            sources = _checked_arguments(kind, name, method, arguments)
            found.append(OperationSpec(name, sources, blocking, inspect.iscoroutinefunction(method)))
    if not found:
        raise TypeError(f"{kind.__qualname__} has no operations: declare methods with @operation(...)")
    return found


def invariants_of(kind: type[Definition]) -> list[str]:
    """Return the names of the invariants of a test."""
    return [name for name, method in inspect.getmembers(kind, callable) if hasattr(method, _INVARIANT)]


def check_numbers(test: Definition) -> None:
    """Raise ValueError if an attribute is out of range."""
    name = type(test).__qualname__
    for attribute, least in (("threads", 2), ("operations", 1)):
        value = getattr(test, attribute)
        if value < least:
            raise ValueError(f"{name}.{attribute} must be at least {least}, got {value!r}")
    if not test.seconds > 0:
        raise ValueError(f"{name}.seconds must be above 0, got {test.seconds!r}")


def _checked_arguments(
    kind: type[Definition], name: str, method: Callable[..., object], arguments: dict[str, object]
) -> dict[str, object]:
    where = f"{kind.__qualname__}.{name}"
    parameters = list(inspect.signature(method).parameters.values())
    if len(parameters) < 2:
        raise TypeError(f"{where} must take the object under test: def {name}(self, subject, ...)")
    known = [each.name for each in parameters[2:]]
    for each in parameters[2:]:
        if each.name not in arguments and each.default is each.empty:
            raise TypeError(
                f"{where} has an argument {each.name!r}, but @operation gives no values for it: "
                f"@operation({each.name}=[...])"
            )
    for given in arguments:
        if given not in known:
            raise TypeError(
                f"@operation of {where} gives values for {given!r}, which is not one of its arguments "
                f"({', '.join(known)})"
            )
    return {given: checked_values(source, f"{where}: {given}") for given, source in arguments.items()}
