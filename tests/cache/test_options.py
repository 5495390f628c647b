"""What `Cache.set` and `Cache` are given is checked, and stands in the metadata."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from latchstore import Cache, DictMemoryStore
from latchstore.cache.inspection import check
from latchstore.cache.options import (
    DEFAULT_OPTIONS,
    LoadManyOptions,
    LoadOptions,
    MemoizeOptions,
    Options,
    SetOptions,
    checked_options,
)
from latchstore.contract.arguments import checked_seconds
from latchstore.engine.entry_facts import METADATA_OVERHEAD, OVERHEAD, facts_in, weight_of_entry
from tests.cache.clocks import Clock

#: Calls with one option; the options that each takes are those of a TypedDict.
CALLS: dict[str, tuple[Any, Callable[[Cache, dict[str, Any]], object]]] = {
    "set": (SetOptions, lambda cache, option: cache.set("key", 1, **option)),
    "set_many": (SetOptions, lambda cache, option: cache.set_many({"key": 1}, **option)),
    "add": (SetOptions, lambda cache, option: cache.add("key", 1, **option)),
    "modify": (SetOptions, lambda cache, option: cache.modify("key", str, default=1, **option)),
    "get_or_load": (LoadOptions, lambda cache, option: cache.get_or_load("key", str.upper, **option)),
    "get_many_or_load": (
        LoadManyOptions,
        lambda cache, option: cache.get_many_or_load(["key"], lambda keys: {}, **option),
    ),
    "memoize": (MemoizeOptions, lambda cache, option: cache.memoize(**option)),
}
TIMES = {"ttl", "idle", "refresh_after", "negative_ttl", "stale_on_error", "timeout"}
ONE_OF_EACH: dict[str, Any] = {
    **dict.fromkeys(TIMES, 5),
    "weight": 1,
    "tags": ["a"],
    "metadata": {"a": 1},
    "keep": bool,
    "key": str,
    "name": "name",
}
OPTIONS_OF_CALLS = [
    (name, option) for name, (kind, _) in CALLS.items() for option in sorted(kind.__optional_keys__)
]


@pytest.mark.parametrize(("name", "option"), OPTIONS_OF_CALLS)
def test_each_is_taken_and_none_is_the_default(name: str, option: str) -> None:
    call = CALLS[name][1]
    call(Cache(), {option: ONE_OF_EACH[option]})
    call(Cache(), {option: None})


@pytest.mark.parametrize(("name", "option"), OPTIONS_OF_CALLS)
def test_what_is_wrong_is_named(name: str, option: str) -> None:
    cache = Cache()
    with pytest.raises(TypeError, match=f"^{option} must be "):
        CALLS[name][1](cache, {option: 1.5j})
    assert len(cache) == 0


@pytest.mark.parametrize("name", CALLS)
def test_what_there_is_not_is_named(name: str) -> None:
    """Also when decorating."""
    kind, call = CALLS[name]
    for unknown in {"tll", *ONE_OF_EACH} - kind.__optional_keys__ - {"key"}:
        with pytest.raises(TypeError, match=f"^'{unknown}' is no option; (did you mean|choose from idle, )"):
            call(Cache(), {unknown: 5})


@pytest.mark.parametrize(("name", "option"), [each for each in OPTIONS_OF_CALLS if each[1] in TIMES])
@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (timedelta(seconds=-1), ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_times(name: str, option: str, seconds: Any, error: type[Exception]) -> None:
    call = CALLS[name][1]
    call(Cache(), {option: timedelta(hours=1)})
    with pytest.raises(error, match=f"^{option} must "):
        call(Cache(), {option: seconds})
    if option != "timeout":
        with pytest.raises(ValueError, match=f"^{option} must be positive"):
            call(Cache(), {option: 0})


def test_infinity_is_never() -> None:
    assert checked_seconds(math.inf, "ttl") is None
    assert checked_seconds(3, "ttl") == 3.0
    clock = Clock()
    cache = Cache(ttl=5.0, idle=5.0, clock=clock)
    cache.set("key", 1, ttl=math.inf, idle=math.inf)
    cache.set("default", 1)
    clock.now += 1e9
    assert dict(cache) == {"key": 1}
    assert cache.remaining("key") is None
    cache.sweep()
    check(cache)


@pytest.mark.parametrize("arguments", [{"ttl": 0}, {"idle": -1.0}, {"max_entries": 0}, {"max_bytes": 0}])
def test_of_the_cache(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Cache(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"weight": -1}, ValueError),
        ({"weight": 1.5}, TypeError),
        ({"tags": "text"}, TypeError),
        ({"tags": [1]}, TypeError),
        ({"metadata": [1]}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_others(arguments: dict[str, Any], error: type[Exception]) -> None:
    cache = Cache()
    with pytest.raises(error, match=next(iter(arguments))):
        cache.set("key", 1, **arguments)
    assert len(cache) == 0


def test_defaults_are_one_object() -> None:
    assert checked_options(SetOptions, {}, DEFAULT_OPTIONS) is DEFAULT_OPTIONS
    assert checked_options(SetOptions, {"ttl": None, "idle": None}, DEFAULT_OPTIONS) is DEFAULT_OPTIONS
    own = Options(5.0)
    assert checked_options(SetOptions, {"weight": 2}, own) == Options(5.0, weight=2)
    assert checked_options(SetOptions, {"ttl": 3}, own) == Options(3.0)
    assert checked_options(SetOptions, {"ttl": math.inf}, own) == DEFAULT_OPTIONS
    assert checked_options(SetOptions, {"ttl": math.inf}, DEFAULT_OPTIONS) is DEFAULT_OPTIONS
    often: SetOptions = {"ttl": 3}
    assert checked_options(SetOptions, often, DEFAULT_OPTIONS) is checked_options(
        SetOptions, often, DEFAULT_OPTIONS
    )


def test_what_stands_in_the_metadata() -> None:
    given: SetOptions = {
        "ttl": 10,
        "idle": 5,
        "refresh_after": 7,
        "weight": 99,
        "tags": ["b", "a", "b"],
        "metadata": {"of": "ours"},
    }
    options = checked_options(SetOptions, given, DEFAULT_OPTIONS)
    assert options == Options(10.0, 5.0, 7.0, 99, ("a", "b"), {"of": "ours"})
    assert options.entry(1000.0) == {
        "of": "ours",
        "cache_expires": 1010.0,
        "cache_idle": 5.0,
        "cache_refresh": 1007.0,
        "cache_weight": 99,
        "cache_tags": ["a", "b"],
    }


def test_metadata_of_the_callers_is_not_changed() -> None:
    metadata = {"of": "ours"}
    cache = Cache(ttl=10.0)
    cache.set("key", 1, metadata=metadata)
    assert metadata == {"of": "ours"}
    metadata["of"] = "others"
    assert cache.store.get_metadata("key")["of"] == "ours"


def test_what_an_entry_weighs() -> None:
    assert weight_of_entry("key", 10, {}) == OVERHEAD + 13
    more = OVERHEAD + METADATA_OVERHEAD
    assert (
        weight_of_entry("key", 10, {"ab": 1.5, "c": "four", "d": b"12"}) == more + 13 + 2 + 8 + 1 + 4 + 1 + 2
    )
    assert weight_of_entry("", 0, {"m": {"k": ["ab", 1]}, "t": ("a", "b")}) == more + 1 + 1 + 2 + 8 + 1 + 2
    expiring = {"cache_expires": 7.5}
    assert facts_in("key", 10, 1, expiring, None).weight == weight_of_entry("key", 10, expiring)
    cache = Cache(codec="raw")
    cache.set("key", b"1234", metadata={"ab": "c"})
    assert cache.stats()["bytes"] == more + 3 + 4 + 2 + 1
    cache.set("key", b"1234", weight=50)
    assert cache.stats()["bytes"] == 50


def test_what_others_have_put_into_the_metadata() -> None:
    """Whatever stands there, it is taken for nothing that a cache has written unless it is a number."""
    wrong = {"cache_expires": "soon", "cache_idle": None, "cache_refresh": True, "cache_weight": -5}
    store = DictMemoryStore()
    store.set("key", (b"data", wrong))
    facts = facts_in("key", 4, 1, store.get_metadata("key"), 7.0)
    assert facts[2:] == (None, None, None)
    assert facts.weight == weight_of_entry("key", 4, wrong)
    store.set_metadata("key", {"cache_idle": math.inf, "cache_expires": 5})
    facts = facts_in("key", 4, 1, store.get_metadata("key"), 7.0)
    assert facts[2:] == (5, None, None)
