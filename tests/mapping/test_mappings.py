"""Stores, snapshots, transactions and caches as mappings: beyond CPython's tests, and of many threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latchstore import (
    AbstractStore,
    Cache,
    Codec,
    DictMemoryStore,
    EventManager,
    SnapshotClosedError,
    StoreClosedError,
    StoreMapping,
    StoreView,
    TransactionClosedError,
)
from tests.mapped import store_of
from tests.mapping.makers import (
    Make,
    bounded_cache,
    cache,
    cache_of_a_shared_store,
    mapping_of_a_minimal_store,
    mapping_of_a_store,
)

THREADS = 8

#: Seconds after which a wait in a test has failed.
TIMEOUT = 30.0

#: What many threads may use.
SHARED = [mapping_of_a_store, cache, bounded_cache, cache_of_a_shared_store]
ALL = [*SHARED, mapping_of_a_minimal_store]

makes = pytest.mark.parametrize("make", ALL)


class TestBeyondCPythons:
    @makes
    def test_an_empty_one_is_false_unless_it_is_a_cache(self, make: Make) -> None:
        mapping = make()
        assert len(mapping) == 0
        assert bool(mapping) is isinstance(mapping, Cache)
        mapping["key"] = 1
        assert bool(mapping) is True

    @makes
    def test_keys_that_are_no_strings(self, make: Make) -> None:
        mapping: Any = make()
        calls: list[Callable[[], object]] = [
            lambda: mapping[1],
            lambda: mapping.get(1),
            lambda: mapping.update([(1, 1)]),
            lambda: mapping.pop(1),
            lambda: mapping.pop(1, None),
            lambda: mapping.setdefault(1, 1),
            lambda: mapping.update({1: 1}),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="key"):
                call()
        assert 1 not in mapping
        assert ["unhashable"] not in mapping
        assert len(mapping) == 0

    @makes
    def test_iterating_shows_one_instant(self, make: Make) -> None:
        mapping = make()
        mapping.update(a=1, b=2, c=3)
        keys = iter(mapping)
        first = next(keys)
        mapping["d"] = 4
        for other in "abc":
            del mapping[other]
        assert {first, *keys} == {"a", "b", "c"}

    @makes
    def test_items_and_values_leave_out_what_has_gone(self, make: Make) -> None:
        mapping = make()
        for view in (mapping.items, mapping.values):
            mapping.update(a=1, b=1, c=1)
            iterator: Iterator[Any] = iter(view())
            next(iterator)
            mapping.clear()
            assert list(iterator) == []

    @makes
    def test_views(self, make: Make) -> None:
        mapping = make()
        mapping.update(a=1, b=None)
        assert mapping.keys() == {"a", "b"}
        assert mapping.items() == {("a", 1), ("b", None)}
        assert ("b", None) in mapping.items()
        assert ("c", None) not in mapping.items()
        assert None in mapping.values()
        assert 2 not in mapping.values()
        assert len(mapping.items()) == len(mapping.values()) == len(mapping) == 2
        assert isinstance(mapping, MutableMapping)

    @makes
    def test_a_value_of_none_is_a_value(self, make: Make) -> None:
        mapping = make()
        mapping["none"] = None
        assert mapping.get("none", 1) is None
        assert mapping.setdefault("none", 1) is None
        assert mapping.pop("none", 1) is None
        assert "none" not in mapping

    def test_popping_counts_as_a_read(self) -> None:
        with Cache() as cache:
            cache["a"] = 1
            cache.pop("a")
            cache.pop("a", None)
            assert (cache.stats()["hits"], cache.stats()["misses"]) == (1, 1)

    def test_what_has_expired_is_not_there(self) -> None:
        now = [0.0]
        with Cache(ttl=1.0, clock=lambda: now[0]) as cache:
            cache["a"] = 1
            now[0] = 1.0
            assert cache.pop("a", "gone") == "gone"
            cache["a"] = 1
            now[0] = 2.0
            assert cache.setdefault("a", 2) == 2
            now[0] = 3.0
            with pytest.raises(KeyError):
                cache.popitem()


class Waiting:
    """Is written and read by way of another thread, which writes to the same store."""

    store: AbstractStore

    @classmethod
    def write(cls) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cls.store.from_bytes, "other", b"").result(TIMEOUT)

    def __getstate__(self) -> dict[str, int]:
        self.write()
        return {"state": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.write()


@pytest.mark.parametrize("make", SHARED)
def test_the_codec_is_called_with_no_lock_held(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping: Any = make()
    monkeypatch.setattr(Waiting, "store", store_of(mapping), raising=False)
    mapping["key"] = Waiting()
    assert isinstance(mapping.setdefault("key", 1), Waiting)
    assert isinstance(mapping.pop("key"), Waiting)
    mapping.setdefault("key", Waiting())
    store_of(mapping).delete("other")
    assert mapping.popitem()[0] == "key"
    mapping.update(key=Waiting())
    assert "key" in mapping


def store_of_text(codec: Codec) -> StoreMapping:
    return DictMemoryStore(EventManager()).mapping(codec)


def cache_of_text(codec: Codec) -> StoreMapping:
    return Cache(codec=codec)


class Interfering:
    """A codec of text in which others can be let come in between, once."""

    def __init__(self) -> None:
        self.once: list[Callable[[], object]] = []

    def _interfere(self) -> None:
        if self.once:
            self.once.pop()()

    def encode(self, value: str) -> bytes:
        self._interfere()
        return value.encode()

    def decode(self, data: bytes) -> str:
        self._interfere()
        return data.decode()


@pytest.mark.parametrize("make", [store_of_text, cache_of_text])
class TestInBetween:
    """Another one writes after a method has looked, and before it writes."""

    def test_setdefault(self, make: Callable[[Interfering], StoreMapping]) -> None:
        codec = Interfering()
        mapping = make(codec)
        codec.once.append(lambda: mapping.update(key="theirs"))
        assert mapping.setdefault("key", "mine") == "theirs"
        assert mapping["key"] == "theirs"

    def test_pop(self, make: Callable[[Interfering], StoreMapping]) -> None:
        codec = Interfering()
        mapping = make(codec)
        mapping["key"] = "old"
        codec.once.append(lambda: mapping.update(key="new"))
        assert mapping.pop("key") == "new"
        assert "key" not in mapping
        mapping["key"] = "old"
        codec.once.append(mapping.clear)
        assert mapping.pop("key", "gone") == "gone"

    def test_popitem(self, make: Callable[[Interfering], StoreMapping]) -> None:
        codec = Interfering()
        mapping = make(codec)
        mapping["key"] = "value"

        def replace() -> None:
            mapping.clear()
            mapping["other"] = "theirs"

        codec.once.append(replace)
        assert mapping.popitem() == ("other", "theirs")
        assert len(mapping) == 0


@pytest.mark.parametrize("make", SHARED)
def test_update_and_clear_are_one_commit(make: Make) -> None:
    mapping = make()
    store: Any = store_of(mapping)
    watch = store.watch()
    mapping.update(a=1, b=2, c=3)
    assert len({store.get(key).revision for key in "abc"}) == 1
    mapping.clear()
    events = [watch.get(0) for _ in range(6)]
    assert len({event.revision for event in events}) == 2


class TestStores:
    """What a mapping is a view of."""

    def test_a_store(self) -> None:
        with DictMemoryStore(EventManager()) as store:
            mapping = store.mapping("json")
            store.set("a", (b"[1]", {"kind": "list"}))
            mapping["b"] = {"two": 2}
            assert mapping == {"a": [1], "b": {"two": 2}}
            mapping["a"] = [2]
            assert store.get_metadata("a") == {"kind": "list"}  # as from_bytes leaves it
            assert repr(mapping) == f"<StoreMapping of {store!r}>"
        with pytest.raises(StoreClosedError):
            mapping["a"] = 3

    @pytest.mark.parametrize("optimistic", [False, True])
    def test_a_transaction(self, optimistic: bool) -> None:
        with DictMemoryStore(EventManager()) as store:
            outside = store.mapping()
            outside.update(a=1, b=2)
            with store.transaction(optimistic=optimistic) as transaction:
                mapping = transaction.mapping()
                assert isinstance(mapping, StoreMapping)
                assert mapping.pop("a") == 1
                assert mapping.setdefault("c", 3) == 3
                mapping.update(d=4)
                assert mapping == {"b": 2, "c": 3, "d": 4}
                assert sorted(dict([mapping.popitem(), mapping.popitem(), mapping.popitem()])) == [
                    "b",
                    "c",
                    "d",
                ]
                mapping["e"] = 5
                with ThreadPoolExecutor(1) as pool:
                    assert pool.submit(dict, outside).result(TIMEOUT) == {"a": 1, "b": 2}
            assert outside == {"e": 5}
            with pytest.raises(TransactionClosedError):
                mapping["a"]

    def test_a_store_inside_a_transaction_that_is_rolled_back(self) -> None:
        with DictMemoryStore(EventManager()) as store:
            mapping = store.mapping()
            mapping["a"] = 1
            with store.transaction() as transaction:
                mapping.clear()
                mapping.update(b=2)
                assert mapping == {"b": 2}
                transaction.doom()
            assert mapping == {"a": 1}

    def test_a_snapshot(self) -> None:
        with DictMemoryStore(EventManager()) as store:
            store.mapping().update(a=1, b=[2])
            with store.snapshot() as snapshot:
                mapping = snapshot.mapping()
                store.mapping().clear()
                assert mapping == {"a": 1, "b": [2]}
                assert mapping.get("a") == 1
                assert mapping.get("c", 3) == 3
                assert "a" in mapping
                assert "c" not in mapping
                assert list(mapping.values()) == [1, [2]]
                assert repr(mapping) == f"<StoreView of {snapshot!r}>"
            with pytest.raises(SnapshotClosedError):
                mapping["a"]

    def test_a_snapshot_is_read_only(self) -> None:
        with DictMemoryStore(EventManager()) as store, store.snapshot() as snapshot:
            mapping: Any = snapshot.mapping()
            assert type(mapping) is StoreView
            assert not issubclass(StoreView, MutableMapping)
            with pytest.raises(TypeError, match="item assignment"):
                mapping["a"] = 1  # type: ignore[index]
            for name in ("pop", "popitem", "setdefault", "update", "clear"):
                assert not hasattr(mapping, name)

    def test_a_store_of_encores(self) -> None:
        memory = pytest.importorskip("encore.storage.dict_memory_store")
        theirs = memory.DictMemoryStore()
        mapping = StoreMapping(theirs)
        mapping["a"] = 1
        mapping.update(b=2)
        assert mapping == {"a": 1, "b": 2}
        assert mapping.setdefault("c", 3) == mapping.pop("c") == 3
        assert len(mapping) == 2
        mapping.clear()
        assert len(mapping) == 0
        assert list(theirs.query_keys()) == []


def together(function: Callable[[int], Any]) -> list[Any]:
    """Return what each of the threads gets, which all begin at the same moment."""
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait(TIMEOUT)
        return function(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result(TIMEOUT) for future in [pool.submit(run, number) for number in range(THREADS)]]


@pytest.mark.parametrize("make", SHARED)
class TestThreads:
    """What takes several steps takes effect at one instant all the same."""

    ROUNDS = 40

    def test_setdefault(self, make: Make) -> None:
        mapping = make()

        def run(number: int) -> list[int]:
            return [mapping.setdefault(f"key{each}", number) for each in range(self.ROUNDS)]

        first, *others = together(run)
        assert all(other == first for other in others)
        assert first == [mapping[f"key{each}"] for each in range(self.ROUNDS)]

    def test_pop(self, make: Make) -> None:
        mapping = make()
        mapping.update({f"key{each}": each for each in range(self.ROUNDS)})

        def run(number: int) -> list[int | None]:
            return [mapping.pop(f"key{each}", None) for each in range(self.ROUNDS)]

        got = together(run)
        for each in range(self.ROUNDS):
            assert sorted(str(popped[each]) for popped in got) == sorted(
                [str(each), *["None"] * (THREADS - 1)]
            )

    def test_popitem(self, make: Make) -> None:
        mapping = make()
        items = {f"key{each}": each for each in range(THREADS * 10)}
        mapping.update(items)

        def run(number: int) -> list[tuple[str, int]]:
            return [mapping.popitem() for _ in range(10)]  # KeyError from none of them

        got = list(itertools.chain(*together(run)))
        assert len(got) == len(items)
        assert dict(got) == items
        assert len(mapping) == 0

    def test_setdefault_and_pop_of_one_key(self, make: Make) -> None:
        mapping = make()

        def run(number: int) -> tuple[list[str], list[str]]:
            made, popped = [], []
            for each in range(self.ROUNDS):
                mine = f"{number}/{each}"
                if mapping.setdefault("key", mine) == mine:
                    made.append(mine)
                got = mapping.pop("key", None)
                if got is not None:
                    popped.append(got)
            return made, popped

        results = together(run)
        made = sorted(itertools.chain(*(made for made, _ in results)))
        popped = sorted(itertools.chain(*(popped for _, popped in results)))
        assert made == popped  # each that was set was taken once
        assert "key" not in mapping

    def test_update_and_clear(self, make: Make) -> None:
        mapping = make()
        store: Any = store_of(mapping)
        sizes = set()

        def run(number: int) -> None:
            for each in range(self.ROUNDS):
                if number % 2:
                    mapping.clear()
                else:
                    mapping.update({f"key{key}": (number, each) for key in range(5)})
                with store.snapshot() as snapshot:
                    view = snapshot.mapping()
                    sizes.add(len(view))
                    assert len(set(view.values())) <= 1  # all of one update

        together(run)
        assert sizes <= {0, 5}
