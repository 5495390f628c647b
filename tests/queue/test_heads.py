"""The first entry of a range is that of a sorted list, whatever commits have made of the entries."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.engine.first_entry import first_values
from latchstore.engine.first_values import FirstValues, QueriedValues
from latchstore.engine.heads import Heads
from latchstore.engine.inspection import engine_of, table_of
from tests.queue.parts import AnyStore

PREFIXES = ("a/", "b/")


def first_by_scan(store: AnyStore, prefix: str) -> tuple[str, str] | None:
    found = [
        (items["place"], key) for key, items in store.query() if str(items.get("place")).startswith(prefix)
    ]
    return min(found, default=None)


def kept(store: AnyStore) -> FirstValues:
    return first_values(store, "queue", "place", PREFIXES)


def queried(store: AnyStore) -> FirstValues:
    return QueriedValues(engine_of(store), "place")


@pytest.mark.parametrize("values_of", [kept, queried])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_is_that_of_a_scan(
    store: AnyStore, seed: int, values_of: Callable[[AnyStore], FirstValues]
) -> None:
    chance = random.Random(seed)
    store.set("there before", (b"", {"place": "a/5"}))
    values = values_of(store)
    for number in range(300):
        key = str(chance.randrange(30))
        place = chance.choice(("a/", "b/", "c/")) + f"{chance.choice((number, chance.randrange(600))):04d}"
        step = chance.randrange(5)
        if step == 0 and key in store:
            store.delete(key)
        elif step == 1:
            store.set(key, (b"", {"place": chance.choice((None, 7, ("a/",)))}))
        elif step == 2:
            with store.transaction() as tx:
                store.set(key, (b"", {"place": place}))
                store.set(f"{key}x", (b"", {"place": place}))
                if chance.random() < 0.3:
                    tx.doom()
        else:
            store.set(key, (b"", {"place": place}))
        firsts = values.look(PREFIXES)
        assert firsts == [first_by_scan(store, prefix) for prefix in PREFIXES]
        assert firsts == [values.first(prefix) for prefix in PREFIXES]


def test_what_is_not_true_any_more_is_taken_out() -> None:
    """A job that is leased again and again leaves something behind each time."""
    store = DictMemoryStore(EventManager())
    values = first_values(store, "queue", "place", PREFIXES)
    garbage: deque[object] = deque()
    for number in range(20_000):
        store.set("k", (b"", {"place": f"a/{number:06d}"}))
        if number % 100 == 0:
            values.look(("b/", "a/"))
    heads = table_of(store).heads["queue"]
    assert len(heads) < 3_000
    assert heads.first("a/", {}, garbage) is None
    store.close()


def test_noting_a_commit_twice_is_harmless() -> None:
    heads = Heads("place", PREFIXES)
    store = DictMemoryStore(EventManager())
    store.set("k", (b"", {"place": "a/1"}))
    ((key, items),) = store.query()
    entry = store.get(key).shared_metadata()  # type: ignore[attr-defined]
    for _ in range(2):
        heads.replace_all([(key, None, entry)])
    assert heads.first("a/", {key: entry}, deque()) == (items["place"], key)
    heads.check({key: entry})
    store.close()
