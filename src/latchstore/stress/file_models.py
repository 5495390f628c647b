"""The models of histories that other programs have recorded: a register, and a store of texts.

Their operations are named as in files of Jepsen and of Porcupine, see `latchstore.stress.files`.

Thread safety: a model is used by one search at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Any

from latchstore.stress.history import Invocation
from latchstore.stress.models import REFUSED, UNKNOWN


class Register:
    """A value that is read and written; each key is one, if there are keys. Its first value is None.

    ========= ============ =========================
    operation argument     answer
    ========= ============ =========================
    read      None         the value
    write     the value    anything
    ========= ============ =========================
    """

    initial: Hashable = None

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the value after the operation, if its answer is what the value before allows.

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
        """Tell whether the value is left as it is."""
        return operation.name == "read"


class CompareAndSetRegister(Register):
    """A `Register` that has one more operation.

    ========= ======================= =====================================================
    operation argument                answer
    ========= ======================= =====================================================
    cas       a pair: what is         whether it was there, and so was replaced
              expected, the new value
    ========= ======================= =====================================================
    """

    def step(self, state: Hashable, operation: Invocation, answer: Any) -> Hashable:
        """Return the value after the operation, if its answer is what the value before allows."""
        if operation.name != "cas":
            return super().step(state, operation, answer)
        expected, new = operation.argument
        found = state == expected
        if answer is not UNKNOWN and answer != found:
            return REFUSED
        return new if found else state

    def is_read(self, operation: Invocation, answer: Any) -> bool:
        """Tell whether the value is left as it is."""
        return operation.name == "read" or (operation.name == "cas" and answer is False)


class KeyValue:
    """Texts by their keys; a key that was never written has an empty text.

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
        All that are going to be checked. If nothing that is written to a key begins with something else that
        is, a text shows what it was made of. Then the search leaves an order as soon as a text has come about
        that can never become the one that somebody got, and need not try all orders of the appends till then.
    """

    initial = ""

    def __init__(self, operations: Iterable[Invocation] = ()) -> None:
        written: dict[str | None, list[Invocation]] = {}
        for operation in operations:
            if operation.name in ("put", "append") and isinstance(operation.argument, str):
                written.setdefault(operation.key, []).append(operation)
        # Of keys whose texts show what they were made of: what is put, and whether nothing else is like it.
        self._put: dict[str | None, dict[str, bool]] = {}
        for key, members in written.items():
            count = Counter(each.argument for each in members)
            if _is_prefix_code(count):
                puts = (each.argument for each in members if each.name == "put")
                self._put[key] = {text: count[text] == 1 for text in puts}
        # Of a key and a text: what was put before all else of it was appended, "" if nothing was.
        self._beginnings: dict[tuple[str | None, str], str] = {}

    def step(self, state: str, operation: Invocation, answer: Any) -> Any:
        """Return the text after the operation, if its answer is what the text before allows.

        Raises
        ------
        ValueError
            If it is none of the operations above.
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
        """Tell whether the text is left as it is."""
        return operation.name == "get"

    def may_answer(self, state: str, operation: Invocation, answer: Any) -> bool:
        """Tell whether a get may have an answer, now or after others."""
        key = operation.key
        if operation.name != "get" or answer is UNKNOWN or answer.startswith(state) or key not in self._put:
            return True
        begun = self._beginnings.get((key, answer))
        if begun is None:
            begun = next((text for text in self._put[key] if answer.startswith(text)), "")
            self._beginnings[key, answer] = begun
        # What is put begins anew, so an answer that begins with it may still come, unless it was put already;
        # a text that nothing was put before is gone once it has gone on in another way.
        return bool(begun) and not (self._put[key][begun] and state.startswith(begun))


def _is_prefix_code(texts: Iterable[str]) -> bool:
    """Tell whether none of the texts begins with another one, so that what is joined can be taken apart."""
    # Those that begin with a text come right after it.
    ordered = sorted(texts)
    return all(ordered) and not any(after.startswith(text) for text, after in pairwise(ordered))
