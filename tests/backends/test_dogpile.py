"""The dogpile.cache backend, beside dogpile's own tests (test_suites.py): what those do not look at."""

from __future__ import annotations

import importlib.metadata
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dogpile.cache", reason="needs latchstore[dogpile]")

from dogpile.cache import CacheRegion, make_region, register_backend
from dogpile.cache.api import NO_VALUE

from latchstore import Cache
from latchstore.backends import dogpile as backend
from latchstore.backends.dogpile import LatchstoreBackend
from tests.fork.children import in_child, needs_fork

THREADS = 16
TIMEOUT = 30
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def region(**arguments: Any) -> CacheRegion:
    made = make_region()
    made.configure("latchstore.memory", arguments=arguments)
    return made


@pytest.fixture(autouse=True)
def registered() -> None:
    """Have dogpile find the backend by its name, in a checkout that was not installed, too."""
    installed = importlib.metadata.entry_points(group="dogpile.cache", name="latchstore.memory")
    if not installed:
        register_backend("latchstore.memory", LatchstoreBackend.__module__, LatchstoreBackend.__name__)


def test_the_entry_point_is_the_backend() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = project["entry-points"]["dogpile.cache"]["latchstore.memory"]
    entry_point = importlib.metadata.EntryPoint("latchstore.memory", named, "dogpile.cache")
    assert entry_point.load() is LatchstoreBackend


class TestArguments:
    def test_bounds(self) -> None:
        made = region(max_entries=3, max_bytes=10_000, policy="lru", something_else=1).backend
        assert (made.cache.max_entries, made.cache.max_bytes) == (3, 10_000)

    @pytest.mark.parametrize(
        ("name", "meant"), [("max_entry", "max_entries"), ("maxbytes", "max_bytes"), ("tll", "ttl")]
    )
    def test_one_that_is_misspelt_is_refused(self, name: str, meant: str) -> None:
        with pytest.raises(TypeError, match=f"no argument '{name}'; did you mean '{meant}'"):
            region(**{name: 10})

    @pytest.mark.parametrize("name", ["codec", "clock", "store"])
    def test_what_a_region_cannot_choose_is_refused(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"no argument '{name}'; to set it, make the cache"):
            region(**{name: "pickle"})

    def test_a_cache_and_options_for_another_are_refused(self) -> None:
        with pytest.raises(TypeError, match="either cache or max_entries"):
            region(cache=Cache(codec="raw"), max_entries=1)

    def test_a_cache_with_another_codec_is_refused(self) -> None:
        with pytest.raises(ValueError, match="must have the codec 'raw'"):
            region(cache=Cache())
        with pytest.raises(TypeError, match=r"cache must be a .*Cache, got str 'memory'"):
            region(cache="memory")

    def test_of_a_configuration_file(self) -> None:
        made = make_region()
        made.configure_from_config(
            {"cache.backend": "latchstore.memory", "cache.arguments.max_entries": "3"}, "cache."
        )
        assert made.actual_backend.cache.max_entries == 3

    def test_ttl_takes_values_from_memory(self) -> None:
        clock = [0.0]
        cache = Cache(codec="raw", clock=lambda: clock[0])
        made = region(cache=cache, ttl=10)
        made.set("key", 1)
        made.set_multi({"other": 2})
        clock[0] = 9.9
        assert made.get_multi(["key", "other"]) == [1, 2]
        clock[0] = 10.0
        assert made.get_multi(["key", "other"]) == [NO_VALUE, NO_VALUE]
        assert len(cache) == 0

    def test_a_value_that_is_too_heavy_is_returned_and_not_kept(self) -> None:
        made = region(max_bytes=1_000)
        made.set("key", "light")
        made.set("key", "x" * 2_000)
        assert made.get("key") is NO_VALUE
        assert made.get_or_create("key", lambda: "x" * 2_000) == "x" * 2_000

    def test_many_is_one_commit(self) -> None:
        made = region()
        store = made.backend.cache.store
        made.set_multi({str(number): number for number in range(50)})
        made.delete_multi([str(number) for number in range(50)])
        assert store.stats()["commits"] == 2


class TestMutexes:
    def test_regions_of_one_cache_create_a_value_once(self) -> None:
        cache = Cache(codec="raw")
        regions = [region(cache=cache) for _ in range(THREADS)]
        barrier = threading.Barrier(THREADS)
        created: list[int] = []

        def create() -> str:
            created.append(1)
            return "value"

        def ask(number: int) -> Any:
            barrier.wait(TIMEOUT)
            return regions[number].get_or_create("key", create)

        with ThreadPoolExecutor(THREADS) as pool:
            assert set(pool.map(ask, range(THREADS))) == {"value"}
        assert len(created) == 1

    def test_caches_that_hold_the_same_have_mutexes_of_their_own(self) -> None:
        first, second = Cache(codec="raw"), Cache(codec="raw")
        assert first == second
        one, other = (LatchstoreBackend({"cache": cache}).get_mutex("key") for cache in (first, second))
        assert one.acquire()
        assert other.acquire(wait=False)

    def test_a_cache_that_has_gone_leaves_no_mutexes(self) -> None:
        made = LatchstoreBackend({"cache": Cache(codec="raw")})
        assert id(made.cache) in backend._registries
        before = len(backend._registries)
        del made
        assert len(backend._registries) == before - 1

    def test_another_thread_may_give_it_back(self) -> None:
        mutex = LatchstoreBackend({}).get_mutex("key")
        assert mutex.acquire()
        thread = threading.Thread(target=mutex.release)
        thread.start()
        thread.join(TIMEOUT)
        assert not mutex.locked()


@needs_fork
class TestFork:
    def test_a_mutex_that_another_thread_holds_is_free_in_the_child(self) -> None:
        made = region()
        held, done = threading.Event(), threading.Event()

        def create() -> str:
            held.set()
            assert done.wait(TIMEOUT)
            return "parent's"

        thread = threading.Thread(target=made.get_or_create, args=("key", create))
        thread.start()
        assert held.wait(TIMEOUT)

        def use() -> None:
            assert made.get_or_create("key", lambda: "child's") == "child's"

        told = in_child(use)
        done.set()
        thread.join(TIMEOUT)
        assert told == ""
        assert made.get("key") == "parent's"

    def test_one_that_the_forking_thread_holds_is_still_its_own(self) -> None:
        mutex = LatchstoreBackend({}).get_mutex("key")
        assert mutex.acquire()

        def use() -> None:
            assert mutex.locked()
            mutex.release()
            assert mutex.acquire(wait=False)

        assert in_child(use) == ""
        assert mutex.locked()

    def test_a_registry_that_another_thread_is_asking_is_free_in_the_child(self) -> None:
        made = LatchstoreBackend({})
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with made._mutexes._mutex:
                held.set()
                assert done.wait(TIMEOUT)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(TIMEOUT)
        told = in_child(lambda: made.get_mutex("key").acquire())
        done.set()
        thread.join(TIMEOUT)
        assert told == ""
