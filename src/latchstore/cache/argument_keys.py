"""Text for the arguments of calls: the keys of memoized functions.

Different arguments have different texts, in this process and across processes. An object that is identified
by its identity gets a number, as an address is reused, and a name may belong to another object later.

Thread safety: a latch ensures that an object gets one number; no code of the object's own runs under it.
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

#: Classes whose repr identifies the value completely.
_PLAIN = {str, bytes, int, float, complex, bool, type(None)}

#: More such classes, by the module that defines them; `_PLAIN` collects those that occur. They are not
#: imported here, as a value can only be of a class whose module is imported already.
_PLAIN_OF_MODULES = {
    "datetime": ("date", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "uuid": ("UUID",),
}


def text_of(value: object, what: str) -> str:
    """Return a text that identifies a plain value, and distinguishes also 1, 1.0 and True.

    Parameters
    ----------
    value : object
    what : str
        Names the value in the error message.

    Raises
    ------
    TypeError
        If the value is not plain.
    """
    kind = type(value)
    if kind in _PLAIN or _is_plain_kind(kind):
        return repr(value)
    text = _text_of_parts(kind, value, what)
    if text is not None:
        return text
    if isinstance(value, Enum):
        # A combination of flags, or of none, has no name.
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
    """Return a text for the instance of a method: its identity, unless it is a plain value."""
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
            f"{name} must allow weak references to be identified, or be a plain value, got "
            f"{describe(value)}; give memoize a key="
        ) from None


def _text_of_parts(kind: type, value: Any, what: str) -> str | None:
    """Return the text of a collection; None if the value is not a collection."""
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
    """Return whether a class is the one that a module has under this name."""
    return getattr(sys.modules.get(module), name, None) is kind


def _text_of_zone(zone: Any, what: str) -> str:
    """Return a text for a time zone: its name or offset if that identifies it, else its identity."""
    kind = type(zone)
    if _is_class_of("zoneinfo", "ZoneInfo", kind) and zone.key is not None:
        return f"ZoneInfo({zone.key!r})"
    return repr(zone) if kind in _PLAIN or _is_plain_kind(kind) else text_of_instance(zone, what)


def _compared_fields(kind: type) -> list[str] | None:
    """Return the names of the fields that distinguish instances of a class.

    None unless the class itself is a frozen dataclass: a subclass may add any state.
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
    """Numbers of objects, unique across objects and processes."""

    def __init__(self) -> None:
        # An entry is removed when its object is freed. If that removes the entry of a new object at the same
        # address, the new object gets another number, which costs one load.
        self.known: dict[int, tuple[weakref.ref[object], str]] = {}
        self._count = itertools.count(1)
        self.renew()

    def renew(self) -> None:
        """Start a new numbering, in a forked child; known objects keep their numbers."""
        self._process = os.urandom(5).hex()
        # Guards that an object gets one number, and the count's `next`. Held for a few dict operations.
        self._latch = Latch()

    def new(self) -> str:
        """Return a number that no object has."""
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
        # Runs wherever the garbage collector runs, so it takes no lock.
        known = self.known.get(address)
        if known is not None and known[0] is gone:
            self.known.pop(address, None)


numbers: _Numbers = _Numbers()
number_of: Callable[[object], str] = numbers.of

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=numbers.renew)
