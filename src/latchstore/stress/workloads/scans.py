"""Scans by query and glob while entries move."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from latchstore.contract.store import AbstractStore
from latchstore.stress.history import History, Operation
from latchstore.stress.registers import check_register
from latchstore.stress.verdict import VALID, Verdict, all_of
from latchstore.stress.workloads.action import (
    Action,
    RolledBackError,
    TransactionalWorkload,
    chance_of,
    facts_of,
    final_reads,
    operations_of,
    revision_of,
)

#: The two sets of tokens: those of the first move from key to key, those of the second between values.
_KEYS, _PLACES = "scans/keys", "scans/places"

#: The initial move of the tokens.
_INITIAL = "initial"

#: Number of actions after which a thread uses all sets and scans.
_BEGINNING = 6

#: How tokens move, and how often: "move at once" is one call.
_MOVES = ("move", "move, not", "move at once")
_WEIGHTS = {_KEYS: (4, 1, 0), _PLACES: (2, 1, 4)}

#: How often the threads move tokens in the beginning; the first thread only scans.
_MOVING = (0.0, 1.0, 0.3)
_SCANS = {
    _KEYS: ("glob", "query", "query_keys", "all keys", "glob in transaction"),
    _PLACES: ("query", "query_keys", "query at one place"),
}

#: The scans that ask for an order and a limit, if the store has them: most have the shortest window.
_ORDERED = {
    _KEYS: ("glob in order",),
    _PLACES: ("query_keys in order", "query in order", "query_keys in order"),
}

#: The kinds of scans with which a run begins, and how often: those that look through the keys by themselves
#: have the shortest windows.
_FIRST = {
    (_KEYS, "glob"): 6,
    (_KEYS, "query"): 5,
    (_KEYS, "query_keys"): 4,
    (_KEYS, "all keys"): 2,
    (_KEYS, "glob in transaction"): 1,
    (_PLACES, "query"): 5,
    (_PLACES, "query_keys"): 4,
    (_PLACES, "query at one place"): 3,
}
#: The same for those in order, which take turns.
_FIRST_IN_ORDER = {(_KEYS, "in order"): 3, (_PLACES, "in order"): 10}


class _Move:
    """Moves all tokens of a set in one transaction, or rolls it back; or moves them by one call.

    A token that moves from key to key has the number of its last move in its key; one that stays has it in
    its metadata.
    """

    __slots__ = ("_tokens", "argument", "key", "name", "revision")

    def __init__(self, name: str, key: str, argument: str, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self.name = name
        self.key = key
        self.argument = argument
        self.revision: int | None = None

    def run(self, store: AbstractStore) -> None:
        if self.name == "move at once":
            self._move_at_once(store)
            return
        with store.transaction(self.name) as transaction:
            for key, metadata in list(store.query(scans=self.key)):
                if self.key == _KEYS:
                    _put_token(store, key.split("/")[2], self.argument)
                    store.delete(key)
                else:
                    place = "b" if metadata["place"] == "a" else "a"
                    rank = _rank(metadata["token"], self.argument, self._tokens)
                    store.update_metadata(key, {"move": self.argument, "place": place, "rank": rank})
            if self.name == "move, not":
                raise RolledBackError
        self.revision = revision_of(transaction)

    def _move_at_once(self, store: AbstractStore) -> None:
        place = "ab"[int(self.argument.split(".")[1]) % 2]
        store.multiset_metadata(
            [f"{_PLACES}/{token}" for token in self._tokens],
            [_place_of(token, self.argument, place, self._tokens) for token in self._tokens],
        )


def _place_of(token: str, move: str, place: str, tokens: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of a token of the second set."""
    rank = _rank(token, move, tokens)
    return {"scans": _PLACES, "token": token, "move": move, "place": place, "rank": rank}


def _rank(token: str, move: str, tokens: Sequence[str]) -> int:
    """Return the place of a token in the order of the second set, which turns by one with each move."""
    turns = 0 if move == _INITIAL else int(move.split(".")[1])
    return (tokens.index(token) + turns) % len(tokens)


def _put_token(store: AbstractStore, token: str, move: str) -> None:
    store.set_metadata(f"{_KEYS}/{token}/{move}", {"scans": _KEYS, "token": token, "move": move})


class _Scan:
    """Scans for all tokens of a set: `limit` of them, if it is in order."""

    __slots__ = ("_limit", "argument", "key", "name")

    def __init__(self, name: str, key: str, limit: int) -> None:
        self.name = name
        self.key = key
        self.argument = None
        self._limit = limit

    def run(self, store: AbstractStore) -> list[list[str]] | int:
        """Return the name and the last move of each token; or only their number."""
        match self.name:
            case "query in order":
                return [_token(*each) for each in _in_order(store, self._limit)]
            case "query_keys in order":
                ordered = store.query_keys(scans=self.key, order_by="rank", limit=self._limit)
                return [_token(key, {}) for key in ordered]
            case "glob in order":
                ordered = store.glob(f"{self.key}/*", order_by="token", limit=self._limit)
                return [_token(key, {}) for key in ordered]
            case "query":
                found = [_token(key, metadata) for key, metadata in store.query(scans=self.key)]
            case "query_keys" if self.key == _PLACES:
                return sum(1 for _ in store.query_keys(scans=self.key))
            case "query at one place":
                return sum(1 for _ in store.query(scans=self.key, place="a"))
            case "query_keys":
                found = [_token(key, {}) for key in store.query_keys(scans=self.key)]
            case "glob":
                found = [_token(key, {}) for key in store.glob(f"{self.key}/*")]
            case "glob in transaction":
                with store.transaction(self.name):
                    found = [_token(key, {}) for key in store.glob(f"{self.key}/*")]
            case _:
                keys = [key for key in store.query_keys() if key.startswith(f"{self.key}/")]
                found = [_token(key, {}) for key in keys]
        return sorted(found)


def _in_order(store: AbstractStore, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the first tokens of the second set, with their metadata."""
    return list(store.query(scans=_PLACES, order_by="rank", limit=limit))


def _has_order(store: AbstractStore) -> bool:
    """Return whether a store that has tokens returns them in order, and as many as it is asked for."""
    try:
        return [metadata.get("token") for _, metadata in _in_order(store, 1)] == ["token 0"]
    except (TypeError, NotImplementedError):
        return False


def _token(key: str, metadata: Mapping[str, Any]) -> list[str]:
    """Return the name and the last move of a token, from its metadata or otherwise from its key."""
    token, _, move = key.removeprefix(f"{_KEYS}/").removeprefix(f"{_PLACES}/").partition("/")
    return [token, metadata.get("move", move)]


class Scans(TransactionalWorkload):
    """Queries and globs while tokens move: each scan sees each token once, where it was at one instant.

    Parameters
    ----------
    tokens : int
        Number of tokens of each kind. They all move together.
    """

    name = "scans"
    weight: ClassVar[float] = 20
    length: ClassVar[int | None] = 4

    def __init__(self, tokens: int = 5) -> None:
        self._tokens = [f"token {number}" for number in range(tokens)]
        self._ordered: bool | None = None

    def prepare(self, store: AbstractStore) -> None:
        """Set the tokens at their initial places."""
        with store.transaction("scans"):
            for token in self._tokens:
                _put_token(store, token, _INITIAL)
                store.set_metadata(f"{_PLACES}/{token}", _place_of(token, _INITIAL, "a", self._tokens))
        self.attach(store, None)

    def attach(self, store: AbstractStore, handed: Any) -> None:
        """Determine whether queries have an order and a limit."""
        if self._ordered is None:
            self._ordered = _has_order(store)

    def actions(self, thread: int, seed: int) -> Iterator[Action]:
        """Yield random moves and scans."""
        chance = chance_of(self.name, seed, thread)
        # The first actions use one set and one kind of scan, so that operations that a failure needs meet.
        shared = chance_of(self.name, seed, -1)
        kinds = {**_FIRST, **_FIRST_IN_ORDER} if self._ordered else _FIRST
        (first,) = shared.choices(tuple(kinds), tuple(kinds.values()))
        number = chance.randrange(6)
        for count in itertools.count():
            number += 1
            beginning = count < _BEGINNING
            tokens, scan = first
            scans = _ORDERED[tokens] if scan == "in order" else (scan,)
            if not beginning:
                tokens = chance.choice((_KEYS, _PLACES))
                scans = _SCANS[tokens] + (_ORDERED[tokens] if self._ordered else ())
            if chance.random() < (_MOVING[thread % len(_MOVING)] if beginning else 0.5):
                name = chance.choices(_MOVES, _WEIGHTS[tokens])[0]
                yield _Move(name, tokens, f"{thread}.{number}", self._tokens)
            else:
                yield _Scan(scans[number % len(scans)], tokens, len(self._tokens))

    def finish(self, store: AbstractStore) -> Any:
        """Return the initial and the final tokens."""
        scans = {tokens: _Scan("query", tokens, len(self._tokens)).run(store) for tokens in (_KEYS, _PLACES)}
        return {"tokens": self._tokens, "found": scans}

    def verdicts(self, history: History) -> dict[str, Verdict]:
        """Check each set of tokens as one register, which each scan reads as a whole."""
        operations = operations_of(self.name, history)
        facts = facts_of(self.name, history)
        if facts is None:
            tokens = self._tokens
        else:
            tokens = facts["tokens"]
            operations += final_reads("query", history, facts["found"])
        whole = all_of(_check_scan(operation, tokens) for operation in operations)
        if whole.answer != "valid":
            return {"each token once": whole}
        sets = ([each for each in operations if each.key == key] for key in (_KEYS, _PLACES))
        registers = (check_register(_as_register(each), _INITIAL) for each in sets)
        return {"each token once": whole, "linearizable": all_of(registers)}


def _check_scan(operation: Operation, tokens: list[str]) -> Verdict:
    """Check that a scan saw each token once, all after the same move."""
    found = operation.result
    if operation.name in _MOVES or operation.outcome != "ok":
        return VALID
    if isinstance(found, int):
        few = operation.name == "query at one place"
        right = found in ((0, len(tokens)) if few else (len(tokens),))
        return VALID if right else Verdict("invalid", f"torn: ({operation}) of {len(tokens)}", (operation,))
    turned = operation.name.endswith("in order") and operation.key == _PLACES
    if [token for token, _ in found] != (_turned(tokens, found) if turned else sorted(tokens)):
        return Verdict(
            "invalid", f"torn: ({operation}), but the tokens are {', '.join(tokens)}", (operation,)
        )
    if len({move for _, move in found}) > 1:
        return Verdict("invalid", f"torn: ({operation}), but all of them move together", (operation,))
    return VALID


def _turned(tokens: list[str], found: list[list[str]]) -> list[str]:
    """Return the tokens in the order of the first one's move; without it, in the one with the same first."""
    if not found or found[0][0] not in tokens:
        return tokens
    first, move = found[0]
    begin = tokens.index(first) if not move else -_rank(tokens[0], move, tokens) % len(tokens)
    return tokens[begin:] + tokens[:begin]


def _as_register(operations: list[Operation]) -> Iterator[Operation]:
    """Return the operations in the form of `check_register`."""
    for each in operations:
        if each.name in _MOVES:
            if each.name != "move, not":
                yield replace(each, name="set")
        # Keys in order do not tell after which move they are.
        elif each.outcome == "ok" and not isinstance(each.result, int) and each.result[0][1]:
            yield replace(each, name="get", result=each.result[0][1])
