"""Arguments as text: the keys of calls of memoized functions.

Different arguments have different texts, and a text is never that of another argument, in this process or in
another one. Objects that are told by their identity have a number: an address is used again, and a name may
be that of another object tomorrow.

Thread safety: an object gets one number, under a latch; nothing of the object's own is called under it.
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections.abc import Callable
from enum import Enum, Flag
from typing import Any

from latchstore.contract.arguments import describe
from latchstore.delivery.waiting import Latch

#: Whose repr says all that there is to them.
_PLAIN = {str, bytes, int, float, complex, bool, type(None)}

#: More of these, by the module that has them; those that are met are added to `_PLAIN`. Not imported here, as
#: only those of modules that are imported can be met.
_PLAIN_OF_MODULES = {
    "datetime": ("date", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "uuid": ("UUID",),
}


def text_of(value: object, what: str) -> str:
    """Say all of a plain value, so that different ones are told apart, also 1, 1.0 and True.

    Parameters
    ----------
    value : object
    what : str
        What it is, for the error.

    Raises
    ------
    TypeError
        If it is no plain value.
    """
    kind = type(value)
    if kind in _PLAIN or _is_plain_kind(kind):
        return repr(value)
    text = _text_of_parts(kind, value, what)
    if text is not None:
        return text
    if isinstance(value, Enum):
        # Flags may be of several members, or of none, and have no name then.
        return f"{_text_of_class(kind)}.{value.value if isinstance(value, Flag) else value.name}"
    if isinstance(value, type):
        return _text_of_class(value)
    if _is_class_of("datetime", "datetime", kind) or _is_class_of("datetime", "time", kind):
        zone: Any = value.tzinfo  # type: ignore[attr-defined]
        return f"{value.replace(tzinfo=None)!r} {_text_of_zone(zone, what)}"  # type: ignore[attr-defined]
    fields = _compared_fields(kind)
    if fields is not None:
        parts = (f"{name}={text_of(getattr(value, name), what)}" for name in fields)
        return f"{_text_of_class(kind)}({', '.join(parts)})"
    raise TypeError(
        f"{what} must be a plain value to make a key of, got {describe(value)}; give memoize a key="
    )


def text_of_instance(value: object, name: str) -> str:
    """Tell the instance of a method: by its identity, unless it is a plain value."""
    if type(value) in _PLAIN:
        return repr(value)
    try:
        return text_of(value, name) if isinstance(value, type) else number_of(value)
    except TypeError:
        pass
    try:
        return text_of(value, name)
    except TypeError:
        raise TypeError(
            f"{name} must allow weak references to be told from others, or be a plain value, got "
            f"{describe(value)}; give memoize a key="
        ) from None


def _text_of_parts(kind: type, value: Any, what: str) -> str | None:
    """Return the text of a collection; None if it is none."""
    if kind is tuple or kind is list:
        items = ", ".join([text_of(item, what) for item in value])
        return f"({items},)" if kind is tuple else f"[{items}]"
    if kind is dict:
        pairs = sorted((text_of(name, what), text_of(item, what)) for name, item in value.items())
        return "{" + ", ".join(f"{name}: {item}" for name, item in pairs) + "}"
    if kind is set or kind is frozenset:
        return f"{kind.__name__}(" + ", ".join(sorted(text_of(item, what) for item in value)) + ")"
    return None


def _is_plain_kind(kind: type) -> bool:
    package = str(kind.__module__).partition(".")[0]
    if not any(_is_class_of(package, name, kind) for name in _PLAIN_OF_MODULES.get(package, ())):
        return False
    _PLAIN.add(kind)
    return True


def _is_class_of(module: str, name: str, kind: type) -> bool:
    """Tell whether a class is the one that a module has under a name, and no other of that name."""
    return getattr(sys.modules.get(module), name, None) is kind


def _text_of_zone(zone: Any, what: str) -> str:
    """Tell a time zone: by its name or difference, if that is all there is to it; else by its identity."""
    kind = type(zone)
    if _is_class_of("zoneinfo", "ZoneInfo", kind) and zone.key is not None:
        return f"ZoneInfo({zone.key!r})"
    return repr(zone) if kind in _PLAIN or _is_plain_kind(kind) else text_of_instance(zone, what)


def _compared_fields(kind: type) -> list[str] | None:
    """Return the names of the fields that say which of a class's equal instances is meant.

    None unless it is a frozen dataclass itself: what is derived from one may be anything.
    """
    own = vars(kind)
    parameters = own.get("__dataclass_params__")
    if parameters is None or not (parameters.frozen and parameters.eq):
        return None
    from dataclasses import fields  # which is imported already

    return [field.name for field in fields(kind) if field.compare]


def _text_of_class(cls: type) -> str:
    return f"<class {cls.__module__}.{cls.__qualname__} {number_of(cls)}>"


class _Numbers:
    """Numbers of objects, which no other object ever has: not in this process, nor in another one."""

    def __init__(self) -> None:
        # An entry goes when its object does; should one of a new object at the same address go with it, that
        # gets another number, which costs a load and no more.
        self.known: dict[int, tuple[weakref.ref[object], str]] = {}
        self._count = itertools.count(1)
        self.renew()

    def renew(self) -> None:
        """Begin to number like another process, in a forked child; what has a number keeps it."""
        self._process = os.urandom(5).hex()
        # Guards that an object gets one number, and `next` of the count. Held for a few operations on dicts.
        self._latch = Latch()

    def new(self) -> str:
        """Return a number that nothing has."""
        return self._latch.during(self._next)

    def _next(self) -> str:
        return f"#{self._process}.{next(self._count)}"

    def of(self, value: object) -> str:
        """Return the number of an object; TypeError if it allows no weak references."""
        address = id(value)
        known = self.known.get(address)
        if known is None or known[0]() is not value:
            reference = weakref.ref(value, lambda gone: self._forget(address, gone))
            known = self._latch.during(self._numbered, address, reference)
        return known[1]

    def _numbered(self, address: int, reference: weakref.ref[object]) -> tuple[weakref.ref[object], str]:
        known = self.known.get(address)
        if known is None or known[0]() is not reference():
            known = self.known[address] = (reference, self._next())
        return known

    def _forget(self, address: int, gone: weakref.ref[object]) -> None:
        # Wherever the collector runs: so it takes no lock.
        known = self.known.get(address)
        if known is not None and known[0] is gone:
            self.known.pop(address, None)


numbers: _Numbers = _Numbers()
number_of: Callable[[object], str] = numbers.of

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=numbers.renew)
