"""Models for histories of other programs: a register, and a key-value store of texts.

Their operations have the names of Jepsen's and Porcupine's files, see `latchstore.stress.files`.

Thread safety: one search at a time uses a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Any

from latchstore.stress.history import Invocation
from latchstore.stress.models import REFUSED, UNKNOWN


class Register:
    """A value that is read and written; with keys, one value per key. The initial value is None.

    ========= ============ =========================
    operation argument     answer
    ========= ============ =========================
    read      None         the value
    write     the value    anything
    ========= ============ =========================
    """

    initial: Hashable = None

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the value after the operation, or `REFUSED` if its answer does not fit the value before.

        Raises
        ------
        ValueError
            If a register has no such operation.
        """
        if operation.name == "read":
            return state if answer is UNKNOWN or answer == state else REFUSED
        if operation.name == "write":
            value: Hashable = operation.argument
            return value
        raise ValueError(f"a register has no operation {operation.name!r}")

    def part(self, operation: Invocation) -> Hashable:
        """Return the key."""
        return operation.key

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

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the value after the operation, or `REFUSED` if its answer does not fit the value before."""
        if operation.name != "cas":
            return super().step(state, operation, answer)
        expected, new = operation.argument
        found = state == expected
        if answer is not UNKNOWN and answer != found:
            return REFUSED
        return new if found else state

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the value unchanged."""
        return operation.name == "read" or (operation.name == "cas" and answer is False)


class KeyValue:
    """Texts by key; a key that was never written has an empty text.

    ========= ================== ===================
    operation argument           answer
    ========= ================== ===================
    get       None               the text
    put       the new text       anything
    append    what is added      anything
    ========= ================== ===================

    Parameters
    ----------
    operations : iterable of Invocation, optional
        All operations of the check. If no text written to a key begins with another such text, a text shows
        of which writes it consists. Then the search abandons an order as soon as it has a text that cannot
        become the answer of any get, and need not try all orders of the appends until then.
    """

    initial = ""

    def __init__(self, operations: Iterable[Invocation] = ()) -> None:
        written: dict[str | None, list[Invocation]] = {}
        for operation in operations:
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

    def step(self, state: str, operation: Invocation, answer: Any) -> Any:
        """Return the text after the operation, or `REFUSED` if its answer does not fit the text before.

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
                return state + operation.argument
            case _:
                raise ValueError(f"a key-value store has no operation {operation.name!r}")

    def part(self, operation: Invocation) -> Hashable:
        """Return the key."""
        return operation.key

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Return whether the operation leaves the text unchanged."""
        return operation.name == "get"

    def may_answer(self, state: str, operation: Invocation, answer: Any) -> bool:
        """Return whether a get may return an answer, now or after other operations."""
        key = operation.key
        if operation.name != "get" or answer is UNKNOWN or answer.startswith(state) or key not in self._put:
            return True
        begun = self._beginnings.get((key, answer))
        if begun is None:
            begun = next((text for text in self._put[key] if answer.startswith(text)), "")
            self._beginnings[key, answer] = begun
        # A put starts a new text, so an answer that begins with a text not put yet is still possible. Once a
        # text has continued differently, an answer that begins with no put text is not.
        return bool(begun) and not (self._put[key][begun] and state.startswith(begun))


def _is_prefix_code(texts: Iterable[str]) -> bool:
    """Return whether no text begins with another one, so that a concatenation can be split uniquely."""
    # Texts that begin with a text follow it in the sorted order.
    ordered = sorted(texts)
    return all(ordered) and not any(after.startswith(text) for text, after in pairwise(ordered))
