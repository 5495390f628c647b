"""Which calls the threads of the cache workload make: scenes of few kinds of calls, drawn at random.

A failure needs two or three certain calls to meet, and each further kind of call would end most races of the
others unseen. So each scene has the calls of one promise of the cache, on as few keys as these need, and its
threads have roles: one loads what another removes, from its first call on.

Thread safety: values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: The name of the memoized function, and its argument.
MEMO, NUMBER = "cache/memo", 1
#: The key of its result.
MEMO_KEY = f"{MEMO}(number={NUMBER})"
MEMO_TTL, MEMO_WEIGHT = 2.0, 3_000

#: The keys, each with the tag of its entries.
TAGS = {"cache/a/0": "odd", "cache/a/1": "even", MEMO_KEY: "odd"}
KEYS = tuple(TAGS)

#: The key of operations on several keys.
SEVERAL = "cache/several"

_WEIGHTS = (1_000, 3_500, 4_000)

#: How often each kind of call is drawn, by its name.
Kinds = Mapping[str, int]

#: Calls that are also made in transactions, kinds of transactions, and all.
_INSIDE: Kinds = {
    "get": 4,
    "get_or_load": 6,
    "call memoized": 3,
    "set": 4,
    "modify": 2,
    "touch": 1,
    "delete": 4,
    "invalidate memoized": 1,
    "clear memoized": 1,
    "invalidate tag": 2,
    "delete glob": 1,
    "clear": 1,
}
TRANSACTIONS: Kinds = {"transaction": 2, "optimistic transaction": 5, "roll back": 1}
_SINGLE: Kinds = {**_INSIDE, "advance clock": 3}

#: The keys that calls on several keys remove.
_REMOVED = {
    "clear memoized": [MEMO_KEY],
    "invalidate memoized": [MEMO_KEY],
    "delete glob": [key for key in KEYS if key.startswith("cache/a/")],
    "clear": list(KEYS),
}

#: Numbers of calls in a transaction.
_STEPS = (1, 2, 2, 3)

#: The fraction of removals that are made in a transaction.
_IN_TRANSACTIONS = 0.2

#: A kind of call, its key and its argument.
Drawn = tuple[str, str, dict[str, Any]]


class Mix:
    """Weighted kinds of calls for each role, and keys.

    Parameters
    ----------
    roles : sequence of mappings
        How often each kind is drawn, for each role. Threads have the roles in turn.
    keys : sequence of str
    inside : mapping, optional
        The kinds that are made in transactions; by default those of all roles that can be.
    steps : sequence of int
        Numbers of calls in a transaction.
    expiring : float
        The fraction of entries that expire.
    """

    def __init__(
        self,
        roles: Sequence[Kinds],
        keys: Sequence[str],
        *,
        inside: Kinds | None = None,
        steps: Sequence[int] = _STEPS,
        expiring: float = 0.5,
    ) -> None:
        self._roles = roles
        self._keys = keys
        self._steps = steps
        self._expiring = expiring
        every = {kind: often for role in roles for kind, often in role.items() if kind in _INSIDE}
        self._inside = every if inside is None else inside

    def kind(self, chance: random.Random, thread: int) -> str:
        """Draw a kind for a thread."""
        return _drawn(chance, self._roles[thread % len(self._roles)])

    def calls(self, chance: random.Random, kind: str, token: str) -> list[Drawn]:
        """Return the calls of a transaction, or the only call, with random keys and options."""
        if kind not in TRANSACTIONS:
            return [self._call(chance, kind, token)]
        return [
            self._call(chance, _drawn(chance, self._inside), f"{token}.{place}")
            for place in range(chance.choice(self._steps))
        ]

    def _call(self, chance: random.Random, kind: str, token: str) -> Drawn:
        argument: dict[str, Any] = {"token": token}
        key = chance.choice(self._keys)
        if kind in _REMOVED:
            argument["keys"] = _REMOVED[kind]
            key = MEMO_KEY if argument["keys"] == [MEMO_KEY] else SEVERAL
        elif kind == "delete":
            argument["keys"] = [key]
        elif kind == "invalidate tag":
            argument["tag"] = TAGS[key]
            argument["keys"] = [each for each in KEYS if TAGS[each] == TAGS[key]]
            key = SEVERAL
        elif kind == "advance clock":
            key = "cache/clock"
        elif kind == "call memoized":
            key = MEMO_KEY
            argument.update(ttl=MEMO_TTL, weight=MEMO_WEIGHT)
        elif kind == "touch":
            argument["ttl"] = chance.choice((1.0, 3.0))
        elif kind != "get":
            argument["weight"] = chance.choice(_WEIGHTS)
            if chance.random() < self._expiring:
                argument["ttl"] = chance.choice((1.0, 2.0))
            if kind == "get_or_load" and chance.random() < 0.25:
                argument["refresh_after"] = 1.0
        return kind, key, argument


def _drawn(chance: random.Random, kinds: Kinds) -> str:
    (kind,) = chance.choices(tuple(kinds), tuple(kinds.values()))
    return kind


# -- scenes -------------------------------------------------------------------------------------------


def _key_and_load(chance: random.Random) -> tuple[str, str]:
    """Return a key, and the call that loads it."""
    key = chance.choice(KEYS)
    return key, "call memoized" if key == MEMO_KEY else "get_or_load"


def _removal(chance: random.Random, key: str) -> str:
    """Return a kind of call that removes a key, whether it is there or is being loaded."""
    ways = ["delete", "invalidate tag", "clear"]
    ways += ["invalidate memoized", "clear memoized"] if key == MEMO_KEY else ["delete glob"]
    return chance.choice(ways)


def _loads(chance: random.Random) -> Mix:
    """One key is loaded while it is removed or replaced: what was loaded before must not be kept."""
    key, load = _key_and_load(chance)
    way = chance.choice(("set", "modify")) if chance.random() < 0.2 else _removal(chance, key)
    block = _drawn(chance, TRANSACTIONS)
    change = block if chance.random() < _IN_TRANSACTIONS else way
    others: Kinds = {load: 2, chance.choice(("get", change)): 1}
    return Mix(({load: 1}, {change: 1}, others), (key,), inside={way: 1}, steps=(1,), expiring=0.25)


def _loads_in_transactions(chance: random.Random) -> Mix:
    """One key is loaded in optimistic transactions while it is removed: they must not be committed."""
    key, load = _key_and_load(chance)
    block, way = "optimistic transaction", _removal(chance, key)
    others: Kinds = {"get": 2, chance.choice(("get", block, way)): 1}
    return Mix(({block: 1}, {way: 1}, others), (key,), inside={load: 4, "get": 1}, steps=(1,), expiring=0.25)


def _bound(chance: random.Random) -> Mix:
    """More is put in than the bound allows, also by transactions: more keys, or heavier values of two."""
    keys = KEYS if chance.random() < 0.5 else chance.sample(KEYS, 2)
    puts = {"set": 3, chance.choice(("get_or_load", "modify")): 1}
    return Mix(({**puts, _drawn(chance, TRANSACTIONS): 2},), keys, inside=puts, steps=(2, 3), expiring=0.25)


def _expiry(chance: random.Random) -> Mix:
    """One key expires while it is read, renewed and replaced."""
    key, load = _key_and_load(chance)
    way = chance.choice(("set", "touch", "modify", load))
    roles = (
        {load: 1, "get": 1},
        {"advance clock": 4, load: 1},
        {load: 1, "get": 1, way: 1},
    )
    return Mix(roles, (key,), expiring=1.0)


def _updates(chance: random.Random) -> Mix:
    """One value is modified by several threads, and replaced: none of these is lost."""
    key, load = _key_and_load(chance)
    way = chance.choice(("set", load, _removal(chance, key), _drawn(chance, TRANSACTIONS)))
    roles = ({"modify": 1}, {"modify": 3, way: 1}, {"modify": 2, "get": 1, way: 1})
    return Mix(roles, (key,), inside={"modify": 3, "get": 1})


def _anything(chance: random.Random) -> Mix:
    """Any few kinds of calls, and loads."""
    kinds = dict.fromkeys(chance.sample(tuple(_SINGLE), 3), 1)
    kinds["get_or_load"] = 2
    if chance.random() < 0.7:
        kinds[_drawn(chance, TRANSACTIONS)] = 2
    return Mix((kinds,), chance.sample(KEYS, chance.choice((1, 1, 3, 3, 3))))


#: The scenes, and how often each is drawn.
_SCENES: Mapping[Callable[[random.Random], Mix], int] = {
    _loads: 3,
    _loads_in_transactions: 4,
    _bound: 1,
    _expiry: 3,
    _updates: 1,
    _anything: 1,
}

#: All kinds of calls, on all keys.
EVERYTHING = Mix(({**_SINGLE, **TRANSACTIONS},), KEYS)


def scene(chance: random.Random) -> Mix:
    """Return a random scene."""
    (chosen,) = chance.choices(tuple(_SCENES), tuple(_SCENES.values()))
    return chosen(chance)
