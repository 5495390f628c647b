"""Changes whose entries are decoded lazily, since few are ever read.

Thread safety: if two threads decode an entry at the same time, their results are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVarTuple, overload

from latchstore.contract.values import Change, Entry, StoredValue, cause_of, deletion

Ts = TypeVarTuple("Ts")


class LateValue(StoredValue):
    """A value whose entry is decoded when it is first read.

    Parameters
    ----------
    make : callable
        Returns the entry; an equal one each time.
    *arguments
        Its arguments.
    """

    __slots__ = ("_made",)

    def __init__(self, make: Callable[[*Ts], Entry], *arguments: *Ts) -> None:
        # hot path: a tuple, as a `functools.partial` takes longer to make.
        self._made: Entry | tuple[Callable[..., Entry], tuple[object, ...]] = (make, arguments)
        self._stream = None

    @property
    def _entry(self) -> Entry:  # type: ignore[override]
        made = self._made
        if isinstance(made, tuple):
            make, arguments = made
            self._made = made = make(*arguments)
        return made

    def __reduce__(self) -> tuple[type[StoredValue], tuple[Entry]]:
        return StoredValue, (self._entry,)


#: A change with `LateValue` where an entry is not decoded yet; that of an eviction is an `Eviction`.
LateChange = tuple[str, Entry | LateValue | None, Entry | LateValue | None]


def _made(entry: Entry | LateValue | None) -> Entry | None:
    return entry._entry if type(entry) is LateValue else entry  # type: ignore[return-value]


class LateChanges(Sequence[Change]):
    """The changes of a commit, with entries that are decoded when they are read.

    Parameters
    ----------
    late : sequence of LateChange

    Attributes
    ----------
    late : sequence of LateChange
    """

    __slots__ = ("late",)

    def __init__(self, late: Sequence[LateChange]) -> None:
        self.late: Sequence[LateChange] = late

    def __len__(self) -> int:
        return len(self.late)

    @overload
    def __getitem__(self, position: int) -> Change: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Change]: ...
    def __getitem__(self, position: int | slice) -> Change | Sequence[Change]:
        if isinstance(position, slice):
            return LateChanges(self.late[position])
        key, old, new = change = self.late[position]
        if new is None:
            return deletion(key, _made(old), cause_of(change))
        return key, _made(old), _made(new)


def late_of(changes: Sequence[Change]) -> Sequence[Change | LateChange]:
    """Return the changes without decoding entries."""
    return changes.late if type(changes) is LateChanges else changes


def keys_of(changes: Sequence[Change]) -> list[str]:
    """Return the keys that were changed, without decoding entries."""
    return [change[0] for change in late_of(changes)]
