"""Indexes change no answer: a store with them beside one without, over values that are hard to look up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from latchstore import DictMemoryStore, EventManager
from latchstore.engine.inspection import check
from tests.test_property import PROFILE, BrokenBlockError


class EqualToAll:
    """Equal to any other value, and not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "EqualToAll()"


class EqualToOne:
    """Equal to 1 and to its own kind, and not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualToOne) or other == 1

    def __repr__(self) -> str:
        return "EqualToOne()"


class Shout(str):
    """A string that is equal to what it is in upper case, with a hash to match nothing."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self).upper() == str(other).upper()

    def __hash__(self) -> int:
        return 17


NAN = float("nan")
NASTY: tuple[Any, ...] = (
    1,
    True,
    1.0,
    1 + 0j,
    0,
    False,
    -0.0,
    0.0,
    NAN,
    float("nan"),
    float("inf"),
    -float("inf"),
    None,
    "",
    "x",
    "X",
    b"",
    b"x",
    (),
    (NAN,),
    (float("nan"),),
    (1,),
    (True,),
    (1.0,),
    ((1,), "x"),
    ([1],),
    frozenset(),
    frozenset({1}),
    frozenset({True, NAN}),
    frozenset({NAN, 1.0}),
    [],
    [1],
    [True],
    [NAN],
    {},
    {"a": 1},
    {1},
    bytearray(b"x"),
    Decimal(1),
    Decimal("NaN"),
    EqualToAll(),
    EqualToOne(),
    Shout("x"),
    Shout("q"),
    2**70,
    float(2**70),
)

nasty = st.integers(0, len(NASTY) - 1).map(NASTY.__getitem__)
nasty_metadata = st.dictionaries(st.sampled_from(("p", "q")), nasty, max_size=2)
few_keys = st.sampled_from(("a", "b", "c", "d", "e"))
changes = st.one_of(
    st.tuples(st.just("set"), few_keys, nasty_metadata),
    st.tuples(st.just("update"), few_keys, nasty_metadata),
    st.tuples(st.just("delete"), few_keys, st.just({})),
    st.tuples(st.just("begin"), few_keys, st.just({})),
    st.tuples(st.just("commit"), few_keys, st.just({})),
    st.tuples(st.just("fail"), few_keys, st.just({})),
)


def play(store: DictMemoryStore, history: list[tuple[str, str, dict[str, Any]]]) -> Iterator[None]:
    """Make the changes, and yield after each; blocks that are left open fail at the end."""
    blocks: list[AbstractContextManager[Any]] = []
    for kind, key, metadata in history:
        if kind == "set":
            store.set_metadata(key, metadata)
        elif kind == "begin":
            blocks.append(store.transaction())
            blocks[-1].__enter__()
        elif kind in ("commit", "fail"):
            if blocks:
                block = blocks.pop()
                if kind == "commit":
                    block.__exit__(None, None, None)
                else:
                    block.__exit__(BrokenBlockError, BrokenBlockError(), None)
        elif store.exists(key):
            if kind == "update":
                store.update_metadata(key, metadata)
            else:
                store.delete(key)
        yield
    while blocks:
        blocks.pop().__exit__(BrokenBlockError, BrokenBlockError(), None)
    yield


def all_answers(store: DictMemoryStore) -> list[list[str]]:
    """What the store answers to each value alone, on both items, and to pairs of both."""
    answers = []
    for position, value in enumerate(NASTY):
        answers.append(sorted(store.query_keys(p=value)))
        answers.append(sorted(key for key, _ in store.query((), q=value)))
        answers.append(sorted(store.query_keys(p=value, q=NASTY[position * 7 % len(NASTY)])))
    return answers


def scan(store: DictMemoryStore) -> list[list[str]]:
    """The same, worked out here from the metadata alone."""
    found = {key: store.get_metadata(key) for key in store.query_keys()}

    def matching(**terms: Any) -> list[str]:
        return sorted(
            key
            for key, metadata in found.items()
            if all(name in metadata and bool(metadata[name] == wanted) for name, wanted in terms.items())
        )

    answers = []
    for position, value in enumerate(NASTY):
        answers.append(matching(p=value))
        answers.append(matching(q=value))
        answers.append(matching(p=value, q=NASTY[position * 7 % len(NASTY)]))
    return answers


@settings(PROFILE, max_examples=settings().max_examples)
@given(history=st.lists(changes, max_size=25), moment=st.integers(0, 24))
def test_indexes_change_no_answer(history: list[tuple[str, str, dict[str, Any]]], moment: int) -> None:
    plain = DictMemoryStore(EventManager())
    indexed = DictMemoryStore(EventManager(), indexes=["p", "q"])
    half = DictMemoryStore(EventManager(), indexes=["p"])
    players = zip(play(plain, history), play(indexed, history), play(half, history), strict=True)
    for step, _ in enumerate(players):
        check(indexed)
        if step == moment:
            assert all_answers(indexed) == all_answers(half) == all_answers(plain) == scan(plain)
    assert all_answers(indexed) == all_answers(half) == all_answers(plain) == scan(plain)
    half.add_index("q")
    half.remove_index("p")
    check(half)
    assert all_answers(half) == all_answers(plain)


@settings(PROFILE, max_examples=4 * settings().max_examples)
@given(first=nasty, second=nasty, wanted=nasty)
def test_one_key_moves_between_values(first: Any, second: Any, wanted: Any) -> None:
    """The smallest history that an index can get wrong: a value becomes another, and goes back."""
    plain = DictMemoryStore(EventManager())
    indexed = DictMemoryStore(EventManager(), indexes=["p"])
    for value in (first, second, first):
        for store in (plain, indexed):
            store.set_metadata("other", {"p": first})
            store.set_metadata("key", {"p": value})
        check(indexed)
        assert sorted(indexed.query_keys(p=wanted)) == sorted(plain.query_keys(p=wanted))
    for store in (plain, indexed):
        store.delete("key")
    check(indexed)
    assert list(indexed.query_keys(p=wanted)) == list(plain.query_keys(p=wanted))
