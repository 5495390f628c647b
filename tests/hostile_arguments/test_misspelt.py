"""Arguments that there are not: errors name the class that was called, or that has the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import latchstore
from latchstore import Cache, DictMemoryStore, EventManager, NearCache, SqliteStore, WorkQueue
from latchstore.cache.options import SetOptions, check_names


class Sessions(Cache[Any]):
    """A class of a user's own."""


MISSPELT: list[tuple[type, dict[str, Any], str, str]] = [
    (Cache, {"max_entry": 3}, "Cache", "did you mean 'max_entries'?"),
    (Sessions, {"max_entry": 3}, "Sessions", "did you mean 'max_entries'?"),
    (NearCache, {"stalenes": 3}, "NearCache", "did you mean 'staleness'?"),
    (DictMemoryStore, {"indexs": ["a"]}, "DictMemoryStore", "did you mean 'indexes'?"),
    (DictMemoryStore, {"?": 1}, "DictMemoryStore", "choose from event_manager, history, indexes, lock_"),
    (SqliteStore, {"path": "a", "durabilty": "full"}, "SqliteStore", "did you mean 'durability'?"),
    (WorkQueue, {"store": None, "name": "a", "max_attempt": 1}, "WorkQueue", "did you mean 'max_attempts'?"),
]


#: Methods that SqliteStore and RedisStore inherit from a base of both, and no public class but them has.
NOT_OF_ABSTRACT_STORE = {"add_index", "remove_index"}


@pytest.mark.parametrize(("cls", "options", "name", "advice"), MISSPELT)
def test_options(cls: Callable[..., object], options: dict[str, Any], name: str, advice: str) -> None:
    unknown = list(options)[-1]
    with pytest.raises(TypeError) as caught:
        cls(**options)
    assert str(caught.value).startswith(f"{name}() has no parameter {unknown!r}; {advice}")


def test_options_by_position() -> None:
    with pytest.raises(TypeError, match=r"^Cache\(\) takes store by position, got 2 arguments; name "):
        Cache(None, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^NearCache\(\) takes nothing by position, got 1 arguments; "):
        NearCache(3)  # type: ignore[call-arg]


def test_the_signature_is_the_own_one() -> None:
    assert "max_entries" in inspect.signature(Cache).parameters
    assert "args" not in inspect.signature(Cache).parameters


def test_options_of_entries() -> None:
    with pytest.raises(TypeError, match=r"^'tll' is no option; did you mean 'ttl'\?$"):
        check_names(SetOptions, {"tll": 3})


def test_methods_are_named_after_a_public_class(tmp_path: Path) -> None:
    """Those of a base that no page mentions would lead nowhere."""
    with DictMemoryStore(EventManager()) as store, SqliteStore(tmp_path / "a", EventManager()) as shared:
        with store.transaction() as transaction:
            pass
        subjects = [store, shared, Cache(), store.snapshot(), transaction, WorkQueue(store, "a")]
        for each in subjects:
            for name in set(dir(each)) - NOT_OF_ABSTRACT_STORE:
                method = getattr(type(each), name, None)
                if not inspect.isfunction(method) or name.startswith("_"):
                    continue
                if method.__module__.startswith("latchstore."):
                    cls, _, last = method.__qualname__.partition(".")
                    assert last == name
                    assert cls in latchstore.__all__, method.__qualname__
                    assert inspect.getdoc(method), method.__qualname__
        with pytest.raises(TypeError, match=r"^AbstractStore\.transaction\(\) got an unexpected keyword "):
            store.transaction("count", optmistic=True)  # type: ignore[call-arg]
