"""The calls of mappings and caches, as calls.py has those of stores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latchstore import Cache

if TYPE_CHECKING:
    from tests.reentry.caller import Caller

Call = Callable[["Caller"], object]

#: How the keys begin that calls write.
OWN = "nested"

# -- mappings ---------------------------------------------------------------------------------------


def mapped(method: Callable[[Any], object]) -> Call:
    return lambda caller: method(caller.subject.store.mapping("raw"))


def mapped_write(method: Callable[[Any, bytes], object]) -> Call:
    return lambda caller: caller.write(lambda data: method(caller.subject.store.mapping("raw"), data))


def mapped_pop(caller: Caller) -> None:
    mapping = caller.subject.store.mapping("raw")
    caller.write(lambda data: mapping.__setitem__(f"{OWN} popped", data), stays=False)
    mapping.pop(f"{OWN} popped", None)


def mapped_del(caller: Caller) -> None:
    mapping = caller.subject.store.mapping("raw")
    caller.write(lambda data: mapping.__setitem__(f"{OWN} popped", data), stays=False)
    with contextlib.suppress(KeyError):
        del mapping[f"{OWN} popped"]


MAPPINGS: dict[str, Call] = {
    "mapping: []": mapped(lambda mapping: mapping["stays"]),
    "mapping: get": mapped(lambda mapping: mapping.get("stays")),
    "mapping: in": mapped(lambda mapping: "stays" in mapping),
    "mapping: iter, keys": mapped(lambda mapping: (list(mapping), len(mapping.keys()), len(mapping))),
    "mapping: items, values": mapped(lambda mapping: (list(mapping.items()), list(mapping.values()))),
    "mapping: repr, codec": mapped(lambda mapping: (repr(mapping), mapping.codec)),
    "mapping: []=": mapped_write(lambda mapping, data: mapping.__setitem__(OWN, data)),
    "mapping: update": mapped_write(lambda mapping, data: mapping.update({OWN: data, f"{OWN} 2": data})),
    "mapping: setdefault": mapped(lambda mapping: mapping.setdefault(f"{OWN} default", b"")),
    "mapping: pop": mapped_pop,
    "mapping: del": mapped_del,
}

# -- caches -----------------------------------------------------------------------------------------


def double(number: int) -> int:
    return 2 * number


def loaded_many(caller: Caller) -> None:
    found = caller.cache.get_many_or_load(["nested a", "nested b"], lambda keys: dict.fromkeys(keys, 1))
    assert found == {"nested a": 1, "nested b": 1}


def loaded_by_the_outer(caller: Caller) -> None:
    """Load a key that the operation may be loading, which may fail."""
    with contextlib.suppress(LookupError):
        caller.cache.get_or_load("new", lambda key: 5)


def memoized(caller: Caller) -> None:
    remembering = caller.cache.memoize(tags=["nested"], name="nested")(double)
    assert remembering(1) == 2
    remembering.invalidate(1)
    remembering.cache_info()
    assert remembering.cache_key(1)
    remembering.cache_clear()
    assert repr(remembering)


def another_cache(caller: Caller) -> None:
    with Cache(caller.subject.store, codec="pickle", max_entries=1_000) as cache:
        assert cache


CACHES: dict[str, Call] = {
    "cache: get": lambda caller: caller.cache.get("goes"),
    "cache: []": lambda caller: caller.cache["stays"],
    "cache: in, len": lambda caller: ("goes" in caller.cache, len(caller.cache), bool(caller.cache)),
    "cache: iter, keys": lambda caller: (list(caller.cache), list(caller.cache.keys())),
    "cache: items, values": lambda caller: (list(caller.cache.items()), list(caller.cache.values())),
    "cache: get_many": lambda caller: caller.cache.get_many(["goes", "moves"]),
    "cache: remaining": lambda caller: caller.cache.remaining("goes"),
    "cache: stats, repr": lambda caller: (caller.cache.stats(), repr(caller.cache)),
    "cache: max_entries, max_bytes": lambda caller: (caller.cache.max_entries, caller.cache.max_bytes),
    "cache: codec, store": lambda caller: (caller.cache.codec, caller.cache.store),
    "cache: set": lambda caller: caller.cache.set("nested", 1, ttl=50.0, tags=["nested"]),
    "cache: []=": lambda caller: caller.cache.__setitem__("nested", 2),
    "cache: set_many": lambda caller: caller.cache.set_many({"nested": 3, "nested 2": 4}),
    "cache: update": lambda caller: caller.cache.update({"nested": 5}),
    "cache: add": lambda caller: caller.cache.add("nested added", 6),
    "cache: modify": lambda caller: caller.cache.modify("nested", lambda value: 7, default=0),
    "cache: touch": lambda caller: caller.cache.touch("nested", 300.0),
    "cache: delete": lambda caller: caller.cache.delete("nested"),
    "cache: del": lambda caller: caller.cache.__delitem__("nested"),
    "cache: pop": lambda caller: caller.cache.pop("nested", None),
    "cache: popitem": lambda caller: caller.cache.popitem(),
    "cache: setdefault": lambda caller: caller.cache.setdefault("nested", 8),
    "cache: delete_glob": lambda caller: caller.cache.delete_glob("nested*"),
    "cache: invalidate_tag": lambda caller: caller.cache.invalidate_tag("nested"),
    "cache: sweep": lambda caller: caller.cache.sweep(),
    "cache: get_or_load": lambda caller: caller.cache.get_or_load("nested", lambda key: 9),
    "cache: get_or_load, of the outer": loaded_by_the_outer,
    "cache: get_many_or_load": loaded_many,
    "cache: memoize": memoized,
    "cache: namespace": lambda caller: caller.cache.namespace("inner").set("key", 10),
    "cache: another one": another_cache,
}
