"""Which cases of a test are left out where its stores differ in their server or their indexes only.

A test of n cases on m such stores is n * m tests, and nearly all of them find nothing that the others do not.
So each case takes one of the stores in turn: of the product a Latin square is left, in which each value of
each parameter meets several of the stores. A test without cases of its own runs on all of them, and with
``LATCHSTORE_ALL_STORES=1`` each case does; ``tox -e long`` sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

#: The mark: the name of the parameter that is a store, and how many stores there are.
MARK = "in_turn"


def left_out(items: Iterable[Any]) -> set[Any]:
    """Return the tests, of those that pytest has collected, whose case runs on another store."""
    numbers: dict[tuple[Any, ...], dict[tuple[int, ...], int]] = {}
    out = set()
    for item in items:
        mark = item.get_closest_marker(MARK)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if mark is None or mark.args[0] not in parameters:
            continue
        store, stores = mark.args
        place, case = 0, []
        for names in _parameters(item, parameters):
            # pytest's own numbers of values are those of whole cases.
            known = numbers.setdefault((item.parent, item.originalname, names), {})
            number = known.setdefault(tuple(id(parameters[name]) for name in names), len(known))
            if store in names:
                place = number
            else:
                case.append(number)
        if case and sum(case) % stores != place:
            out.add(item)
    return out


def _parameters(item: Any, names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Find the parameters of a test, those whose values change together as one."""
    left = dict.fromkeys(names)
    for mark in item.iter_markers("parametrize"):
        given = mark.args[0]
        together = [name.strip() for name in given.split(",")] if isinstance(given, str) else [*given]
        if together[0] in left:
            for name in together:
                del left[name]
            yield tuple(together)
    for name in left:
        yield (name,)
