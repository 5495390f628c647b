"""Every public method, and what each of its arguments is drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from readerwriterlock import rwlock

from latchstore import (
    BaseEvent,
    Cache,
    DictMemoryStore,
    EventManager,
    NearCache,
    Snapshot,
    StoreEvent,
    StoreSetEvent,
    Transaction,
)
from latchstore.cache.policies import LRU
from latchstore.contract.codec import RawCodec
from latchstore.engine.locks import ReadWriteLock
from tests.hostile_arguments.offers import (
    COUNTS,
    METADATA,
    ODD,
    RAISING,
    SECONDS,
    Calling,
    HostileError,
    Kind,
    OddInteger,
    OddString,
    Offer,
    Raising,
    bad,
    bound,
    called,
    content,
    count,
    data,
    direction,
    good,
    key,
    keys,
    limit,
    metadata,
    names,
    notes,
    order,
    revision,
    seconds,
    several,
    size,
    tries,
    value,
    values,
    where,
)

#: A path that can be checked, and no more.
NOWHERE = Offer("nowhere", lambda store: "nowhere/at/all", None)


def none_or(offers: Iterable[Offer]) -> Kind:
    """Return what may be None as well."""
    return Kind((good("None", None), *(each for each in offers if each.name != "None")))


#: The arguments of what is given in order.
IN_ORDER = {"order_by": order, "descending": direction, "limit": limit}

#: What is called: the method, and what each argument is drawn from.
READS: dict[str, dict[str, Kind]] = {
    "get": {"key": key},
    "get_data": {"key": key},
    "get_data_range": {"key": key, "start": bound, "end": bound},
    "get_metadata": {"key": key, "select": names},
    "exists": {"key": key},
    "to_bytes": {"key": key},
    "multiget": {"keys": keys},
    "multiget_data": {"keys": keys},
    "multiget_metadata": {"keys": keys, "select": names},
    "query": {"select": names, "where": where, **IN_ORDER},
    "query_keys": {"where": where, **IN_ORDER},
    "glob": {"pattern": key, **IN_ORDER},
}
WRITES: dict[str, dict[str, Kind]] = {
    "set": {"key": key, "value": value, "buffer_size": size, "if_revision": revision},
    "set_data": {"key": key, "data": data, "buffer_size": size, "if_revision": revision},
    "set_metadata": {"key": key, "metadata": metadata, "if_revision": revision},
    "update_metadata": {"key": key, "metadata": metadata, "if_revision": revision},
    "delete": {"key": key, "if_revision": revision},
    "evict": {"key": key, "cause": key, "if_revision": revision},
    "from_bytes": {"key": key, "data": content, "buffer_size": size, "if_revision": revision},
    "multiset": {"keys": keys, "values": values, "buffer_size": size},
    "multiset_data": {"keys": keys, "datas": several(data, "datas?"), "buffer_size": size},
    "multiset_metadata": {"keys": keys, "metadatas": several(metadata, "metadatas?")},
    "multiupdate_metadata": {"keys": keys, "metadatas": several(metadata, "metadatas?")},
}
NO_PATHS = (bad("None", None), bad("7.0", 7.0), bad("NUL", "a\0b", ValueError), RAISING)
path = Kind((NOWHERE, *NO_PATHS))
this_file = Kind((Offer("this file", lambda store: __file__, None), *NO_PATHS))
FILES: dict[str, dict[str, Kind]] = {
    "from_file": {"key": key, "path": this_file, "buffer_size": size, "if_revision": revision},
    "to_file": {"key": key, "path": path, "buffer_size": size},
}

#: Of stores that have something to wait for.
DELIVERED: dict[str, dict[str, Kind]] = {
    "flush": {"timeout": Kind((good("20", 20), *SECONDS[2:])), "revision": revision},
    "close": {"timeout": Kind((good("20", 20), *SECONDS[2:]))},
}
OTHERS: dict[str, dict[str, Kind]] = {
    "add_index": {"name": key},
    "remove_index": {"name": key},
    "transaction": {"notes": notes, "timeout": seconds},
    "attempts": {"notes": notes, "tries": tries, "timeout": seconds},
    "transactional": {"notes": notes, "tries": tries, "timeout": seconds},
    "watch": {
        "glob": key,
        "filter": none_or(METADATA),
        "since": revision,
        "max_buffer": count,
        "on_overflow": Kind((good("drop", "drop"), good("coalesce", "coalesce"), *ODD)),
    },
    "wait_for_key": {"key": key, "timeout": Kind(SECONDS)},
    "wait_for": {
        "predicate": Kind(
            (
                good("yes", lambda: True),
                good("no", lambda: False),
                bad("None", None),
                Offer("calling", lambda store: lambda: called(store, True), True),
                RAISING,
            )
        ),
        "timeout": Kind(SECONDS),
    },
    **DELIVERED,
    "call_later": {
        "seconds": seconds,
        "function": Kind(
            (
                good("one", lambda: None),
                Offer("calling", lambda store: Calling(store).call, True),
                Offer("one that raises", lambda store: Raising().__eq__, True),
                bad("None", None),
                RAISING,
            )
        ),
    },
    "mapping": {
        "codec": Kind(
            (
                good("'json'", "json"),
                Offer("one", lambda store: RawCodec(), True),
                bad("no name", "none"),
                bad("a class", RawCodec),
                good("None", None),
                RAISING,
            )
        )
    },
    "save": {"path": path},
    **FILES,
}
CALLS = {**READS, **WRITES, **OTHERS}

#: What any store refuses.
OF_ANY_STORE = {**READS, **WRITES, **FILES}


CONSTRUCTOR: dict[str, Kind] = {
    "event_manager": Kind(
        (
            good("None", None),
            Offer("one", lambda store: EventManager(), True),
            bad("7", 7),
            bad("''", ""),
            RAISING,
        )
    ),
    "indexes": keys,
    "lock_timeout": Kind((*SECONDS, bad("None", None))),
    "lock_class": Kind(
        (
            good("ours", ReadWriteLock),
            good("a library's", rwlock.RWLockWrite),
            bad("makes 7", lambda: 7),
            *ODD[:3],
        )
    ),
    "max_pending_events": none_or(COUNTS),
    "history": Kind((good("0", 0), good("3", 3), bad("-1", -1), bad("10**30", 10**30), *ODD)),
}


CLASSES = (
    good("events", StoreSetEvent),
    bad("None", None),
    bad("int", int),
    bad("an event", BaseEvent()),
    RAISING,
)
FUNCTIONS = (
    Offer("a function", lambda store: lambda event: None, True),
    Offer("one that raises", lambda store: Raising().__eq__, True),
    Offer("one that calls", lambda store: lambda event: Calling(store).call(), True),
    bad("None", None),
    bad("text", "text"),
    RAISING,
)
FILTERS = (
    good("None", None),
    good("a key", {"key": "new"}),
    good("a path", {"source.name": 1, "metadata.a.b": 2}),
    bad("an empty path", {"": 2}),
    bad("no such attribute", {"colour": "red"}),
    bad("a function", {"metadata.state": len}),
    Offer("an odd key", lambda store: {"key": OddString("new")}, True),
    Offer("a raising value", lambda store: {"metadata": Raising()}, True),
    Offer("a calling value", lambda store: {"key": Calling(store)}, True),
    bad("text", "text"),
    bad("no str for a path", {1: 2}),
    RAISING,
)
MANAGER: dict[str, dict[str, Kind]] = {
    "connect": {
        "cls": Kind(CLASSES),
        "func": Kind(FUNCTIONS),
        "filter": Kind(FILTERS),
        "priority": Kind((good("0", 0), good("10**30", 10**30), good("True", True), *ODD[:3], RAISING)),
    },
    "disconnect": {"cls": Kind(CLASSES), "func": Kind(FUNCTIONS)},
    "emit": {"event": Kind((Offer("one", lambda store: StoreEvent(store), True), bad("None", None)))},
    "disable": {"cls": Kind(CLASSES)},
    "enable": {"cls": Kind(CLASSES)},
    "is_enabled": {"cls": Kind(CLASSES)},
    "register": {"cls": Kind(CLASSES)},
    "set_trace": {"func": Kind((good("None", None), bad("7", 7), RAISING))},
}

# -- caches ---------------------------------------------------------------------------------------


class Awkward:
    """What pickling it does."""

    def __init__(self, reduce: Callable[[], Any]) -> None:
        self._reduce = reduce

    def __reduce__(self) -> Any:
        return self._reduce()


def fail(*arguments: object) -> Any:
    raise HostileError("raised by a function")


VALUES = (
    good("7", 7),
    good("None", None),
    good("100 kB", b"x" * 100_000),
    Offer("what cannot be pickled", lambda store: lambda: None, False),
    Offer("what raises", lambda store: Awkward(fail), False),
    Offer("what calls", lambda store: Awkward(lambda: called(store, (int, ()))), True),
    Offer("what reduces to nonsense", lambda store: Awkward(lambda: 7), False),
    Offer("what comes back as an error", lambda store: Awkward(lambda: (fail, ())), True),
)
PERIODS = (
    good("1", 1),
    good("0.5", 0.5),
    good("infinity", math.inf),
    good("10**400", 10**400),
    good("None", None),
    Offer("an odd int", lambda store: OddInteger(3), True),
    bad("0", 0),
    bad("-1", -1),
    bad("nan", math.nan),
    bad("-10**400", -(10**400)),
    *(each for each in ODD if each.name != "half"),
)
WEIGHTS = (
    good("None", None),
    good("0", 0),
    good("7", 7),
    Offer("an odd int", lambda store: OddInteger(7), True),
    bad("-1", -1),
    bad("10**30", 10**30),
    *ODD,
)
LOADERS = (
    Offer("one", lambda store: lambda key: 1, True),
    Offer("one that calls", lambda store: lambda key: called(store, 1), True),
    Offer("one that raises", lambda store: fail, False),
    Offer("one that returns what cannot be pickled", lambda store: lambda key: fail.__code__, False),
    Offer("one of no arguments", lambda store: lambda: 1, False),
    bad("None", None),
    RAISING,
)
LOADERS_OF_MANY = (
    Offer("one", lambda store: lambda keys: dict.fromkeys(keys, 1), True),
    Offer("one that finds nothing", lambda store: lambda keys: {}, True),
    Offer("one that finds others", lambda store: lambda keys: {"other": 1, 7: 2}, True),
    Offer("one that returns a list", lambda store: lambda keys: [1], False),
    Offer("one that raises", lambda store: fail, False),
    bad("None", None),
)
CHANGES = (
    Offer("one", lambda store: lambda value: 2, True),
    Offer("one that calls", lambda store: lambda value: called(store, 2), True),
    Offer("one that raises", lambda store: fail, False),
    bad("None", None),
    RAISING,
)
TIMEOUTS = (good("1", 1), good("None", None), good("0", 0), bad("-1", -1), bad("nan", math.nan), *ODD[:2])

object_, period, weight, timeout = map(Kind, (VALUES, PERIODS, WEIGHTS, TIMEOUTS))
tags = keys
OPTIONS: dict[str, Kind] = {
    "ttl": period,
    "idle": period,
    "refresh_after": period,
    "weight": weight,
    "tags": tags,
    "metadata": none_or(METADATA),
}
keep = Kind(
    (
        good("None", None),
        good("bool", bool),
        Offer("one that calls", lambda store: lambda value: called(store, True), True),
        Offer("one that raises", lambda store: fail, False),
        bad("7", 7),
    )
)
MAPPINGS = (
    good("{}", {}),
    good("two", {"fine": 1, "new": 2}),
    Offer("one that cannot be pickled", lambda store: {"fine": 1, "new": lambda: None}, False),
    Offer("one that calls", lambda store: {"new": Awkward(lambda: called(store, (int, ())))}, True),
    bad("a key that is no str", {"fine": 1, 7: 2}),
    bad("7", 7),
    bad("None", None),
    RAISING,
)
mapping = Kind(MAPPINGS)

#: What is called, and what each argument is drawn from. All but what is in `CACHE_READS` may write.
CACHE_READS: dict[str, dict[str, Kind]] = {
    "get": {"key": key},
    "get_many": {"keys": keys},
    "remaining": {"key": key},
}
CACHE_CALLS: dict[str, dict[str, Kind]] = {
    **CACHE_READS,
    "set": {"key": key, "value": object_, **OPTIONS},
    "set_many": {"values": mapping, **OPTIONS},
    "add": {"key": key, "value": object_, **OPTIONS},
    "modify": {"key": key, "function": Kind(CHANGES), "default": object_, **OPTIONS},
    "touch": {"key": key, "ttl": period},
    "delete": {"key": key},
    "pop": {"key": key, "default": object_},
    "setdefault": {"key": key, "default": object_},
    "invalidate_tag": {"tag": key},
    "delete_glob": {"pattern": key},
    "get_or_load": {
        "key": key,
        "loader": Kind(LOADERS),
        "negative_ttl": period,
        "timeout": timeout,
        "keep": keep,
        "stale_on_error": period,
        **OPTIONS,
    },
    "get_many_or_load": {
        "keys": keys,
        "loader": Kind(LOADERS_OF_MANY),
        "timeout": timeout,
        "keep": keep,
        **OPTIONS,
    },
    "memoize": {
        "key": none_or((good("one", repr), bad("7", 7), RAISING)),
        "name": none_or((good("'name'", "name"), bad("7", 7), bad("a list", []))),
        "negative_ttl": period,
        "timeout": timeout,
        # What raises does so when the function is called.
        "keep": Kind(tuple(each for each in keep.offers if each.name != "one that raises")),
        "stale_on_error": period,
        **OPTIONS,
        "tags": Kind((*tags.offers, good("one", lambda *arguments: ["tag"]))),
    },
    "close": {"timeout": Kind(tuple(each for each in TIMEOUTS if each.name != "0"))},
}


CACHE_CONSTRUCTOR: dict[str, tuple[Offer, ...]] = {
    "near": (
        good("None", None),
        bad("7", 7),
        bad("a class", NearCache),
        bad("of memory", NearCache()),
        RAISING,
    ),
    "store": (good("None", None), bad("7", 7), bad("a dict", {}), bad("a class", DictMemoryStore), RAISING),
    "max_entries": (*WEIGHTS, bad("0", 0))[2:],
    "max_bytes": (*WEIGHTS, bad("0", 0))[2:],
    "ttl": PERIODS,
    "idle": PERIODS,
    "policy": (
        good("'lru'", "lru"),
        good("a class", LRU),
        bad("no name", "none"),
        bad("one", LRU()),
        Offer("one that makes None", lambda store: lambda: None, False),
        Offer("one that makes text", lambda store: lambda: "sieve", False),
        Offer("one that raises", lambda store: fail, False),
        bad("None", None),
        RAISING,
    ),
    "codec": (
        good("'json'", "json"),
        good("one", RawCodec()),
        bad("no name", "none"),
        bad("a class", RawCodec),
        RAISING,
    ),
    "clock": (
        good("one", lambda: 7),
        Offer("one that raises", lambda store: fail, False),
        good("None", None),
        bad("7", 7),
        bad("one that returns None", lambda: None),
        bad("one that returns text", lambda: "now"),
        bad("one that returns nan", lambda: math.nan),
        bad("one that returns infinity", lambda: math.inf),
        RAISING,
    ),
}

#: All of them, by the class whose methods they are.
TABLE: dict[type, dict[str, dict[str, Kind]]] = {
    DictMemoryStore: CALLS,
    Transaction: {**READS, **WRITES},
    Snapshot: READS,
    EventManager: MANAGER,
    Cache: CACHE_CALLS,
}
