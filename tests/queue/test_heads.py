"""The first entry of a range is that of a sorted list, whatever commits have made of the entries."""

from __future__ import annotations

import random
from collections import deque

import pytest

from latchstore import DictMemoryStore, EventManager
from latchstore.engine.first_entry import first_values
from latchstore.engine.heads import Heads
from latchstore.engine.inspection import check, table_of

PREFIXES = ("a/", "b/")


def first_by_scan(store: DictMemoryStore, prefix: str) -> tuple[str, str] | None:
    found = [
        (items["place"], key) for key, items in store.query() if str(items.get("place")).startswith(prefix)
    ]
    return min(found, default=None)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_is_that_of_a_scan(seed: int) -> None:
    chance = random.Random(seed)
    store = DictMemoryStore(EventManager())
    store.set("there before", (b"", {"place": "a/5"}))
    values = first_values(store, "queue", "place", PREFIXES)
    for number in range(600):
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
        assert values.look(PREFIXES) == [first_by_scan(store, prefix) for prefix in PREFIXES]
    check(store)
    store.close()


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
