"""Operations of caches, and of stores that a cache is on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from latchstore import Cache, EntryTooLargeError
from tests.interrupts.subjects import CacheSubject


def cached_in_a_transaction(subject: CacheSubject) -> None:
    with subject.store.transaction():
        subject.cache.set("new", 5)
        subject.cache["moves"] = 6
        assert subject.cache.get("new") == 5
        subject.cache.delete("goes")


def cached_in_an_optimistic_transaction(subject: CacheSubject) -> None:
    with subject.store.transaction(optimistic=True):
        subject.cache.set("new", 5)
        subject.cache.set("newer", 6)


def cached_in_blocks(subject: CacheSubject) -> None:
    cache = subject.cache
    with subject.store.transaction("outer"):
        cache.set("new", 5)
        with subject.store.transaction("kept"):
            cache.set("moves", 6)
        with subject.store.transaction("taken back") as tx:
            cache.set("newer", 7)
            tx.doom()


def cached_and_rolled_back(subject: CacheSubject) -> None:
    with subject.store.transaction() as tx:
        subject.cache.set("new", 5)
        subject.cache.delete("moves")
        tx.doom()


def missed(subject: CacheSubject) -> None:
    subject.cache.get("missing")


def read_by_way_of_the_cache(subject: CacheSubject) -> None:
    cache = subject.cache
    assert "goes" in cache
    assert "missing" not in cache
    assert len(cache) == len(list(cache))
    assert cache.get_many(["goes", "missing"]) == {"goes": 1}
    assert dict(cache.items())["moves"] == 2
    assert cache.remaining("goes") == 100.0
    cache.stats()


def looked_at(subject: CacheSubject) -> None:
    cache = subject.cache
    assert cache
    assert cache["moves"] == 2
    for view in (cache.keys(), cache.values()):
        list(view)
    assert (cache.codec, cache.store, cache.max_entries, cache.max_bytes).count(None) < 3
    repr(cache)


def updated(subject: CacheSubject) -> None:
    subject.cache.update({"moves": 5, "new": 6})
    del subject.cache["moves"]


def in_a_namespace(subject: CacheSubject) -> None:
    subject.cache.namespace("inner").get("missing")


def read_what_others_wrote(subject: CacheSubject) -> None:
    subject.store.set_data("moves", b"7")
    assert subject.cache.get("moves") == 7


def refreshed(subject: CacheSubject) -> None:
    subject.later(250.0)
    subject.cache.get_or_load("stays", lambda key: 7, ttl=100.0)


def swept(subject: CacheSubject) -> None:
    subject.later(150.0)
    subject.cache.sweep()


def load_that_fails(subject: CacheSubject) -> None:
    def fail(key: str) -> object:
        raise LookupError(key)

    for _ in range(2):
        with contextlib.suppress(LookupError):
            subject.cache.get_or_load("new", fail, negative_ttl=10.0)


def double(number: int) -> int:
    return 2 * number


def remembered(subject: CacheSubject) -> None:
    remembering = subject.cache.memoize(tags=["tag"], name="double")(double)
    assert remembering(1) == remembering(1) == 2
    assert remembering.cache_key(1)
    remembering.cache_info()
    repr(remembering)
    remembering.invalidate(1)
    remembering.cache_clear()


def another_cache(subject: CacheSubject) -> None:
    # By the same clock: one that is made in part, and kept by a traceback, may yet sweep what is over.
    with Cache(subject.store, codec="pickle", max_entries=100, clock=lambda: subject.now) as cache:
        assert cache


def failing_set(subject: CacheSubject) -> None:
    with contextlib.suppress(EntryTooLargeError):
        subject.cache.set("new", 5, weight=1_001)


#: All of them.
CACHE: dict[str, Callable[[Any], object]] = {
    "cache: set": lambda subject: subject.cache.set("new", 5, ttl=50.0),
    "cache: set, by LRU": lambda subject: subject.cache.set("new", 5),
    "cache: set, by S3-FIFO": lambda subject: subject.cache.set("new", 5),
    "cache: set, evicting several": lambda subject: subject.cache.set("new", 5),
    "cache: set, in place of another": lambda subject: subject.cache.set("moves", 5, tags=["new"]),
    "cache: set, too heavy": failing_set,
    "cache: set_many": lambda subject: subject.cache.set_many({"moves": 5, "new": 6, "newer": 7}),
    "cache: add": lambda subject: subject.cache.add("new", 5),
    "cache: modify": lambda subject: subject.cache.modify("moves", lambda value: value + 1),
    "cache: touch": lambda subject: subject.cache.touch("goes", 300.0),
    "cache: get": lambda subject: subject.cache.get("goes"),
    "cache: get, missing": missed,
    "cache: get, what others wrote": read_what_others_wrote,
    "cache: reads": read_by_way_of_the_cache,
    "cache: looked at": looked_at,
    "cache: update": updated,
    "cache: namespace": in_a_namespace,
    "cache: delete": lambda subject: subject.cache.delete("goes"),
    "cache: pop": lambda subject: subject.cache.pop("goes"),
    "cache: popitem": lambda subject: subject.cache.popitem(),
    "cache: setdefault": lambda subject: subject.cache.setdefault("new", 5),
    "cache: clear": lambda subject: subject.cache.clear(),
    "cache: delete_glob": lambda subject: subject.cache.delete_glob("mov*"),
    "cache: invalidate_tag": lambda subject: subject.cache.invalidate_tag("tag"),
    "cache: sweep": swept,
    "cache: get_or_load": lambda subject: subject.cache.get_or_load("new", lambda key: 5),
    "cache: get_or_load, refreshing": refreshed,
    "cache: get_or_load, failing": load_that_fails,
    "cache: get_many_or_load": lambda subject: subject.cache.get_many_or_load(
        ["moves", "new", "newer"], lambda keys: {"new": 5}
    ),
    "cache: memoize": remembered,
    "cache: transaction": cached_in_a_transaction,
    "cache: transaction, optimistic": cached_in_an_optimistic_transaction,
    "cache: transaction, nested": cached_in_blocks,
    "cache: transaction, doomed": cached_and_rolled_back,
    "cache: another one on the store": another_cache,
    "own cache: set": lambda subject: subject.cache.set("new", 5, ttl=50.0),
    "own cache: delete": lambda subject: subject.cache.delete("goes"),
    "own cache: sweep": swept,
    "own cache: transaction": cached_in_a_transaction,
    "own cache: get_or_load": lambda subject: subject.cache.get_or_load("new", lambda key: 5),
}

#: What the caches of some operations are made with.
CACHE_OPTIONS: dict[str, dict[str, Any]] = {
    "cache: set, by LRU": {"policy": "lru"},
    "cache: set, by S3-FIFO": {"policy": "s3-fifo"},
    "cache: set, evicting several": {"entries": 200},
    "cache: set, too heavy": {"max_bytes": 1_000},
}
