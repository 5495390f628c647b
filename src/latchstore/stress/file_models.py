"""Models for histories of other programs: registers, key-value stores, mutexes, queues, sets.

Their operations have the names of Jepsen's and Porcupine's files, see `latchstore.stress.files`. `operations`
lists them.

Thread safety: one search at a time uses a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Any, ClassVar

from latchstore.stress.edn import hashable
from latchstore.stress.history import Invocation
from latchstore.stress.models import REFUSED, UNKNOWN


class _ByKey:
    """A model whose operations on one key do not depend on those on others."""

    def part(self, operation: Invocation) -> Hashable:
        """Return the key."""
        return operation.key


class Register(_ByKey):
    """A value that is read and written; with keys, one value per key.

    ========= ============ =========================
    operation argument     answer
    ========= ============ =========================
    read      None         the value
    write     the value    anything
    ========= ============ =========================

    Parameters
    ----------
    initial : object
        The initial value.
    """

    operations: ClassVar[tuple[str, ...]] = ("read", "write")

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial

    def step(self, state: Any, operation: Invocation, answer: Any) -> Any:
        """Return the value after the operation, or `REFUSED` if its answer does not fit the value before.

        Raises
        ------
        ValueError
            If a register has no such operation.
        """
        if operation.name == "read":
            return state if answer is UNKNOWN or answer == state else REFUSED
        if operation.name == "write":
            return operation.argument
        raise ValueError(f"a register has no operation {operation.name!r}")

    def expected(self, state: Any, operation: Invocation) -> Any:
        """Return the answer of an operation."""
        return state if operation.name == "read" else None

    def overwrites(self, operation: Invocation) -> bool:
        """Return whether the value after the operation does not depend on that before."""
        return operation.name == "write"

    def requires(self, operation: Invocation, answer: Any) -> Any:
        """Return the only value before an operation with an answer; UNKNOWN if there may be others."""
        return answer if operation.name == "read" else UNKNOWN

    def gives(self, operation: Invocation, answer: Any) -> Any:
        """Return the value after an operation if it may be another one than before, or else UNKNOWN."""
        return operation.argument if operation.name == "write" else UNKNOWN

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the value unchanged."""
        return operation.name == "read"


class CompareAndSetRegister(Register):
    """A `Register` with one more operation.

    ========= ======================= =====================================================
    operation argument                answer
    ========= ======================= =====================================================
    cas       a pair: what is         whether it was there, and so was replaced
              expected, the new value
    ========= ======================= =====================================================
    """

    operations: ClassVar[tuple[str, ...]] = ("read", "write", "cas")

    def step(self, state: Any, operation: Invocation, answer: Any) -> Any:
        """Return the value after the operation, or `REFUSED` if its answer does not fit the value before."""
        if operation.name != "cas":
            return super().step(state, operation, answer)
        expected, new = _pair(operation)
        found = state == expected
        if answer is not UNKNOWN and answer != found:
            return REFUSED
        return new if found else state

    def expected(self, state: Any, operation: Invocation) -> Any:
        """Return the answer of an operation."""
        return state == _pair(operation)[0] if operation.name == "cas" else super().expected(state, operation)

    def requires(self, operation: Invocation, answer: Any) -> Any:
        """Return the only value before an operation with an answer; UNKNOWN if there may be others."""
        if operation.name == "cas":
            return _pair(operation)[0] if answer is True else UNKNOWN
        return super().requires(operation, answer)

    def gives(self, operation: Invocation, answer: Any) -> Any:
        """Return the value after an operation if it may be another one than before, or else UNKNOWN."""
        if operation.name == "cas":
            return UNKNOWN if answer is False else _pair(operation)[1]
        return super().gives(operation, answer)

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the value unchanged."""
        return operation.name == "read" or (operation.name == "cas" and answer is False)


def _pair(operation: Invocation) -> tuple[Any, Any]:
    """Return what a compare-and-set expects, and the new value."""
    try:
        expected, new = operation.argument
    except (TypeError, ValueError):
        raise ValueError(f"cas takes a pair, [expected new], got {operation.argument!r}") from None
    return expected, new


class KeyValue(_ByKey):
    """Values by key. What is appended to must be a text; a key without one has an empty text.

    ========= ================== ===================
    operation argument           answer
    ========= ================== ===================
    get       None               the value
    put       the new value      anything
    append    the added text     anything
    ========= ================== ===================

    Parameters
    ----------
    invocations : iterable of Invocation, optional
        All operations of the check. If no text written to a key begins with another such text, a text shows
        of which writes it consists. Then the search abandons an order as soon as it has a text that cannot
        become the answer of any get, and need not try all orders of the appends until then.
    initial : object
        The initial value of each key.
    """

    operations: ClassVar[tuple[str, ...]] = ("get", "put", "append")

    def __init__(self, invocations: Iterable[Invocation] = (), initial: Any = "") -> None:
        self.initial = initial
        written: dict[str | None, list[Invocation]] = {}
        for operation in invocations:
            if operation.name in ("put", "append") and isinstance(operation.argument, str):
                written.setdefault(operation.key, []).append(operation)
        # For keys whose texts show the writes: the texts that are put, and whether each is unique.
        self._put: dict[str | None, dict[str, bool]] = {}
        for key, members in written.items():
            count = Counter(each.argument for each in members)
            if _is_prefix_code(count):
                puts = (each.argument for each in members if each.name == "put")
                self._put[key] = {text: count[text] == 1 for text in puts}
        # By key and text: the put text that it begins with, "" if there is none.
        self._beginnings: dict[tuple[str | None, str], str] = {}

    def step(self, state: Any, operation: Invocation, answer: Any) -> Any:
        """Return the value after the operation, or `REFUSED` if its answer does not fit the value before.

        Raises
        ------
        ValueError
            If the operation is not listed above.
        """
        match operation.name:
            case "get":
                return state if answer is UNKNOWN or answer == state else REFUSED
            case "put":
                return operation.argument
            case "append":
                if not isinstance(state, str | None) or not isinstance(operation.argument, str):
                    raise ValueError(
                        f"append takes a text, and a text to add it to, got {operation.argument!r}"
                    )
                return (state or "") + operation.argument
            case _:
                raise ValueError(f"a key-value store has no operation {operation.name!r}")

    def expected(self, state: Any, operation: Invocation) -> Any:
        """Return the answer of an operation."""
        return state if operation.name == "get" else None

    def overwrites(self, operation: Invocation) -> bool:
        """Return whether the value after the operation does not depend on that before."""
        return operation.name == "put"

    def requires(self, operation: Invocation, answer: Any) -> Any:
        """Return the only value before an operation with an answer; UNKNOWN if there may be others."""
        return answer if operation.name == "get" else UNKNOWN

    def gives(self, operation: Invocation, answer: Any) -> Any:
        """Return the value after an operation if it is known without that before, or else UNKNOWN."""
        return operation.argument if operation.name == "put" else UNKNOWN

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the value unchanged."""
        return operation.name == "get"

    def may_answer(self, state: Any, operation: Invocation, answer: Any) -> bool:
        """Return whether a get may return an answer, now or after other operations."""
        key = operation.key
        if key not in self._put or not isinstance(answer, str) or not isinstance(state, str):
            return True
        if operation.name != "get" or answer.startswith(state):
            return True
        begun = self._beginnings.get((key, answer))
        if begun is None:
            begun = next((text for text in self._put[key] if answer.startswith(text)), "")
            self._beginnings[key, answer] = begun
        # A put starts a new text, so an answer that begins with a text not put yet is still possible. Once a
        # text has continued differently, an answer that begins with no put text is not.
        return bool(begun) and not (self._put[key][begun] and state.startswith(begun))


class Mutex(_ByKey):
    """A lock: ``acquire``, ``release``, also by another client. The state is whether it is held."""

    operations: ClassVar[tuple[str, ...]] = ("acquire", "release")

    def __init__(self, initial: Any = False) -> None:
        self.initial: bool = bool(initial)

    def step(self, state: bool, operation: Invocation, answer: Any) -> Any:
        """Return whether the lock is held after the operation, or `REFUSED` if it could not have ended."""
        return REFUSED if state is (operation.name == "acquire") else not state


class Queue(_ByKey):
    """A first-in, first-out queue: ``enqueue`` of a value, ``dequeue``, which gives None if it is empty."""

    operations: ClassVar[tuple[str, ...]] = ("enqueue", "dequeue")

    def __init__(self, initial: Any = ()) -> None:
        self.initial: tuple[Any, ...] = tuple(initial)

    def step(self, state: tuple[Any, ...], operation: Invocation, answer: Any) -> Any:
        """Return the values after the operation, or `REFUSED` if its answer was not the first of them."""
        if operation.name == "enqueue":
            return (*state, operation.argument)
        return state[1:] if answer is UNKNOWN or answer == self.expected(state, operation) else REFUSED

    def expected(self, state: tuple[Any, ...], operation: Invocation) -> Any:
        """Return the answer of an operation."""
        return state[0] if state and operation.name == "dequeue" else None


class Set(_ByKey):
    """A set: ``add`` of a value, and ``read``, whose answer has all values, in any order."""

    operations: ClassVar[tuple[str, ...]] = ("add", "read")

    def __init__(self, initial: Any = ()) -> None:
        self.initial: frozenset[Any] = frozenset(map(hashable, initial))

    def step(self, state: frozenset[Any], operation: Invocation, answer: Any) -> Any:
        """Return the values after the operation, or `REFUSED` if its answer does not have those before."""
        if operation.name == "add":
            return state | {hashable(operation.argument)}
        return state if answer is UNKNOWN or _as_set(answer) == state else REFUSED

    def expected(self, state: frozenset[Any], operation: Invocation) -> Any:
        """Return the answer of an operation."""
        return set(state) if operation.name == "read" else None

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the set unchanged."""
        return operation.name == "read"

    def may_answer(self, state: frozenset[Any], operation: Invocation, answer: Any) -> bool:
        """Return whether a read may return an answer, now or after other operations: nothing is removed."""
        return operation.name != "read" or answer is UNKNOWN or state <= _as_set(answer)


def _as_set(answer: Any) -> frozenset[Any]:
    return frozenset(map(hashable, answer or ()))


class Transactions:
    """Registers by key, which transactions, ``txn``, read and write at one instant.

    The argument and the answer are lists of ``["r", key, value]`` and ``["w", key, value]``, also written
    ``read`` and ``write``; what is read is in the answer.

    Parameters
    ----------
    initial : object
        The initial value of each key.
    """

    operations: ClassVar[tuple[str, ...]] = ("txn",)
    initial: frozenset[Any] = frozenset()

    def __init__(self, initial: Any = None) -> None:
        self._missing = initial

    def step(self, state: frozenset[Any], operation: Invocation, answer: Any) -> Any:
        """Return the values after the transaction, or `REFUSED` if it has read others than those before.

        Raises
        ------
        ValueError
            If it has a step that neither reads nor writes.
        """
        values = dict(state)
        for name, key, *value in operation.argument if answer is UNKNOWN else answer:
            key = hashable(key)
            if name in ("w", "write"):
                values[key] = hashable(value[0])
            elif name not in ("r", "read"):
                raise ValueError(f"a transaction of registers has steps 'r' and 'w', got {name!r}")
            elif answer is not UNKNOWN and hashable(value[0]) != values.get(key, self._missing):
                return REFUSED
        return frozenset(values.items())

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the transaction leaves all values unchanged."""
        return all(name in ("r", "read") for name, *_ in operation.argument)


def _is_prefix_code(texts: Iterable[str]) -> bool:
    """Return whether no text begins with another one, so that a concatenation can be split uniquely."""
    # Texts that begin with a text follow it in the sorted order.
    ordered = sorted(texts)
    return all(ordered) and not any(after.startswith(text) for text, after in pairwise(ordered))
