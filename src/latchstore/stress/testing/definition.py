"""What a test says of itself: the object under test, its operations and invariants.

Thread safety: a `Definition` has no state of its own; its methods are called by the threads of a run.
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

#: What `operation` and `invariant` write to a function.
_OPERATION = "_latchstore_operation"
_INVARIANT = "_latchstore_invariant"


@dataclass(frozen=True)
class OperationSpec:
    """An operation of a test.

    Attributes
    ----------
    name : str
        That of the method.
    sources : dict
        For each argument the strategy or the tuple that it comes from.
    blocking : bool
        Whether it was declared as one that may block.
    is_async : bool
        Whether it is a coroutine function.
    """

    name: str
    sources: dict[str, object]
    blocking: bool = False
    is_async: bool = False


def operation(**arguments: object) -> Callable[[F], F]:
    """Declare a method of a `Test` as an operation that threads call: ``@operation(item=[1, 2, 3])``.

    The method gets the object under test and the arguments; what it returns or raises is what is compared. It
    may be a coroutine function: then the test's operations are tasks of one event loop.

    Parameters
    ----------
    **arguments : strategy or iterable
        For each argument of the method but the object under test the values that it may have: a strategy of
        Hypothesis, or a list, a range, a tuple of values. Each call gets a copy.

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
    return _declared(arguments, blocking=False)


def blocking_operation(**arguments: object) -> Callable[[F], F]:
    """Declare an operation that may wait for another thread; otherwise as `operation`.

    Under a scheduler such operations are found without being declared. Native threads do not call those that
    are declared, as nothing but time tells that one of them waits.
    """
    return _declared(arguments, blocking=True)


def _declared(arguments: dict[str, object], *, blocking: bool) -> Callable[[F], F]:
    def declare(method: F) -> F:
        setattr(method, _OPERATION, (arguments, blocking))
        return method

    return declare


def invariant() -> Callable[[F], F]:
    """Declare a method of a `Test` as an invariant of the object under test: ``@invariant()``.

    It gets the object when no operation runs, between two operations or at the end. It fails if it raises
    something, such as AssertionError, or returns False.
    """

    def declare(method: F) -> F:
        setattr(method, _INVARIANT, True)
        return method

    return declare


class Definition:
    """What a test says of itself; users derive from `Test`, which describes the attributes."""

    #: So that pytest does not take this class, imported into a module of tests, for one of its own.
    __test__: ClassVar[bool] = False

    threads: ClassVar[int] = 3
    operations: ClassVar[int] = 3
    seconds: ClassVar[float] = 10.0
    schedules: ClassVar[int | None] = None
    seed: ClassVar[int] = 0
    modules: ClassVar[Sequence[str]] = ()
    model: ClassVar[Model[Any, Any, Any] | None] = None

    def make(self) -> Any:
        """Return a new object under test; called in one thread."""
        raise NotImplementedError(f"{type(self).__qualname__}.make() must return the object under test")

    def reference(self) -> Any:
        """Return a new object on which the orders of the calls are tried, in one thread; by default `make()`.

        It may be of a simpler class, whose answers are the right ones.
        """
        return self.make()

    def setup(self, subject: Any) -> None:
        """Prepare an object of `make` or `reference`, before any operation; in one thread."""

    def state(self, subject: Any) -> object:
        """Return the final state to be compared, when all operations have returned; None for nothing.

        By default that is the contents of a collection (what has a length and can be iterated over).
        """
        if hasattr(type(subject), "__len__") and hasattr(type(subject), "__iter__"):
            return dict(subject) if hasattr(type(subject), "keys") else list(subject)
        return None

    def validate(self, subject: Any) -> None:
        """Look at the object of `make` when all operations have returned; what it raises is a failure."""

    def teardown(self, subject: Any) -> None:
        """Close an object of `make` or `reference`, at the end."""

    def describe(self, result: Any) -> object:
        """Return what is compared of what an operation returned.

        By default values are compared by their contents: numbers, strings, containers, and other objects by
        class and attributes.
        """
        return observed(result)

    def describe_error(self, error: BaseException) -> object:
        """Return what is compared of an exception that an operation raised; by default its class."""
        return type(error)


def operations_of(kind: type[Definition]) -> list[OperationSpec]:
    """Return the operations of a test, by name.

    Raises
    ------
    TypeError, ValueError
        If there is none, or the arguments of one do not fit its method.
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
    """Raise ValueError if there can be no schedules."""
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
                f"{where} has an argument {each.name!r}, of which @operation names no values: "
                f"@operation({each.name}=[...])"
            )
    for given in arguments:
        if given not in known:
            raise TypeError(
                f"@operation of {where} names {given!r}, which is none of its arguments ({', '.join(known)})"
            )
    return {given: checked_values(source, f"{where}: {given}") for given, source in arguments.items()}
