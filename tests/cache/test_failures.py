"""Of a failure a copy is kept, without frames and context, and each call raises one of its own."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from latchstore import Cache, CodecError
from latchstore.cache.failures import bare_copy
from latchstore.cache.inspection import check_idle
from tests.cache.clocks import TIMEOUT, Clock
from tests.cache.loading.loaders import Loader, Loading, await_waiters


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache]:
    with Cache(codec="pickle", clock=clock) as cache:
        yield cache
        check_idle(cache)


class Described(Exception):
    """Makes its argument of what it is given, so it cannot be made of its argument again."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Slotted(LookupError):
    __slots__ = ("unset", "where")

    def __init__(self, where: str) -> None:
        self.where = where


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Choosy(Exception):
    def __new__(cls, *, code: int) -> Choosy:
        return super().__new__(cls)

    def __init__(self, *, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Mixed(LookupError, OSError):
    pass


class Broken(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("is not copied")


class Hidden(Exception):
    """Keeps its code where only its own way of copying finds it, as classes written in C do."""

    codes: ClassVar[weakref.WeakKeyDictionary[Hidden, int]] = weakref.WeakKeyDictionary()

    def __init__(self, code: int) -> None:
        self.codes[self] = code

    @property
    def value(self) -> int:
        return self.codes[self]

    def __reduce__(self) -> Any:
        return Hidden, (self.value,)


class Everything(ExceptionGroup[Exception]):
    pass


def caught(function: Callable[[], object]) -> BaseException:
    """Return what a function raises, with traceback and context."""
    try:
        try:
            raise ValueError("context")
        except ValueError:
            function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


MADE: dict[str, Callable[[], object]] = {
    "KeyError": raising(KeyError("key")),
    "no arguments": raising(RuntimeError()),
    "made of others": raising(Described(7, text="no")),
    "with slots": raising(Slotted("here")),
    "a frozen dataclass": raising(Frozen(7)),
    "with a __new__ of its own": raising(Choosy(code=7)),
    "of several bases": raising(Mixed(2, "no")),
    "whose __reduce__ fails": raising(Broken("x")),
    "with a __reduce__": raising(CodecError("key", "no")),
    "with a hidden part": raising(Hidden(7)),
    "OSError": lambda: os.stat("/no/such/file"),
    "OSError of two files": raising(OSError(18, "no link", "a", None, "b")),
    "UnicodeDecodeError": lambda: b"\xff".decode(),
    "UnicodeEncodeError": lambda: "\ud800".encode(),
    "SyntaxError": lambda: compile("1 +", "file", "eval"),
    "ImportError": lambda: __import__("no.such"),
    "StopIteration": raising(StopIteration(7)),
    "AttributeError": lambda: object().nothing,  # type: ignore[attr-defined]
    "NameError": lambda: eval("nothing"),
    "JSONDecodeError": lambda: json.loads("{"),
    "UnpicklingError": lambda: pickle.loads(b"no"),
    "a group": raising(ExceptionGroup("several", [KeyError(1), Described(2, text="x")])),
    "a group of one's own": raising(Everything("all", [KeyError(1)])),
}


def facts(error: BaseException) -> tuple[Any, ...]:
    """Return what there is to see of an exception."""
    members = "errno filename filename2 start reason lineno text name value where"
    shown = tuple(getattr(error, name, None) for name in members.split())
    inner = [facts(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else None
    return type(error), str(error), error.args if inner is None else error.args[0], vars(error), shown, inner


def has_frames(error: BaseException) -> bool:
    """Tell whether a traceback is found in an exception, or those in it."""
    seen: set[int] = set()
    rest: list[Any] = [error]
    while rest:
        value = rest.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, BaseException):
            if value.__traceback__ is not None or value.__context__ is not None:
                return True
            rest += [value.__cause__, value.args, vars(value), getattr(value, "exceptions", ())]
        elif isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, (list, tuple)):
            rest += value
    return False


def has_exceptions(records: list[logging.LogRecord]) -> bool:
    """Tell whether a log that keeps these records keeps frames by them."""
    arguments = [each for record in records for each in (record.exc_info, *(record.args or ()))]
    return any(isinstance(each, BaseException) or type(each) is tuple for each in arguments)


class TestCopies:
    @pytest.mark.parametrize("function", MADE.values(), ids=MADE)
    def test_a_copy_is_like_the_exception(self, function: Callable[[], object]) -> None:
        error = caught(function)
        before = facts(error)
        twin = bare_copy(error)
        assert twin is not error
        assert facts(twin) == facts(bare_copy(twin)) == facts(error) == before
        assert not has_frames(twin)
        assert error.__traceback__ is not None

    def test_the_cause_is_kept_and_is_bare(self) -> None:
        def function() -> None:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise RuntimeError("outer") from error

        twin = bare_copy(caught(function))
        assert repr(twin.__cause__) == "KeyError('inner')"
        assert twin.__suppress_context__
        assert not has_frames(twin)

    def test_exceptions_in_arguments_and_attributes_are_bare(self) -> None:
        inner = [caught(raising(KeyError(number))) for number in range(4)]
        error = RuntimeError("several", inner[0], [inner[1]], {"third": inner[2]})
        error.original = inner[3]  # type: ignore[attr-defined]
        error.where = inner[0].__traceback__  # type: ignore[attr-defined]
        error.frame = sys._getframe()  # type: ignore[attr-defined]
        twin: Any = bare_copy(error)
        assert not has_frames(twin)
        assert repr(twin.args) == repr(error.args)
        assert (repr(twin.original), twin.where, twin.frame) == ("KeyError(3)", None, None)

    def test_notes_are_the_copys_own(self) -> None:
        for error in (KeyError("key"), CodecError("key", "no")):
            error.add_note("one")
            twin = bare_copy(error)
            twin.add_note("two")
            assert (error.__notes__, twin.__notes__) == (["one"], ["one", "two"])

    def test_what_refers_to_itself(self) -> None:
        errors: list[Any] = [RuntimeError("x"), CodecError("key", "no")]
        for error in errors:
            error.me = error
            error.list = [error]
            error.list.append(error.list)
            error.__cause__ = error
            twin: Any = bare_copy(error)
            assert not has_frames(twin)
        plain: Any = bare_copy(RuntimeError("x"))
        plain.me = plain
        twin = bare_copy(plain)
        assert twin.me is twin

    def test_the_object_that_lacks_an_attribute_is_not_kept(self) -> None:
        class Thing:
            pass

        thing = Thing()
        error = caught(lambda: thing.nothing)  # type: ignore[attr-defined]
        assert bare_copy(error).obj is None  # type: ignore[attr-defined]


class Held:
    """What a caller or a loader has in its local variables."""


class TestNothingIsKeptAlive:
    """Without the collector of cycles: what is over is freed at once."""

    @pytest.fixture(autouse=True)
    def no_collector(self) -> Iterator[None]:
        gc.disable()
        yield
        gc.enable()

    @pytest.fixture
    def held(self) -> list[weakref.ref[Held]]:
        return []

    def call(self, held: list[weakref.ref[Held]], step: Callable[[], object]) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        try:
            try:
                raise ValueError(mine)
            except ValueError:
                step()
        except LookupError:
            pass

    def failing(self, held: list[weakref.ref[Held]]) -> Callable[..., Any]:
        def load(*arguments: object) -> Any:
            mine = Held()
            held.append(weakref.ref(mine))
            raise LookupError(*arguments)

        return load

    @pytest.mark.parametrize("negative_ttl", [None, 60.0])
    def test_by_a_failure(
        self, cache: Cache, held: list[weakref.ref[Held]], negative_ttl: float | None
    ) -> None:
        load = self.failing(held)
        memoized = cache.memoize(negative_ttl=negative_ttl)(load)
        for _ in range(3):
            self.call(held, lambda: cache.get_or_load("key", load, negative_ttl=negative_ttl))
            self.call(held, lambda: memoized(1))
            self.call(held, lambda: cache.get_many_or_load(["a", "b"], load))
        with cache.store.transaction():
            self.call(held, lambda: cache.get_or_load("other", load))
        assert not any(reference() for reference in held)

    def test_by_a_refresh_that_fails(
        self,
        cache: Cache,
        clock: Clock,
        held: list[weakref.ref[Held]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("latchstore.cache.attempts.logger.warning", lambda *record, exc_info: None)
        cache.set("key", 1, refresh_after=10.0)
        clock.now += 10
        self.call(held, lambda: cache.get_or_load("key", self.failing(held)))
        assert not any(reference() for reference in held)

    def test_by_those_who_wait(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: Any, held: list[weakref.ref[Held]]
    ) -> None:
        loader = Loader(LookupError("no"))
        with Loading(cache, pool, loader):
            waiting = [
                pool.submit(self.call, held, lambda: cache.get_or_load("key", loader)) for _ in range(4)
            ]
            await_waiters(waits, 4)
        for future in waiting:
            future.result(TIMEOUT)
        assert not any(reference() for reference in held)


class TestEachHasItsOwn:
    def test_those_who_get_a_kept_failure(self, cache: Cache) -> None:
        def load(key: str) -> None:
            raise LookupError(key)

        errors = [caught(lambda: cache.get_or_load("key", load, negative_ttl=60.0)) for _ in range(3)]
        assert len({id(error) for error in errors}) == 3
        assert all(repr(error) == "LookupError('key')" for error in errors)
        with pytest.raises(LookupError) as info:
            cache.get_or_load("key", load)
        assert info.value.__context__ is None

    def test_those_who_wait(self, cache: Cache, pool: ThreadPoolExecutor, waits: Any) -> None:
        loader = Loader(LookupError("no"))
        with Loading(cache, pool, loader) as loading:
            one = pool.submit(cache.get_or_load, "key", loader)
            many = pool.submit(cache.get_many_or_load, ["key"], lambda keys: {})
            await_waiters(waits, 2)
        errors = [future.exception(TIMEOUT) for future in (loading.future, one, many)]
        assert len({id(error) for error in errors}) == 3
        assert [repr(error) for error in errors] == ["LookupError('no')"] * 3

    def test_what_cannot_be_copied_is_not_passed_on(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Those who wait load it themselves."""
        error: Exception = LookupError("no")
        for _ in range(2_000):
            outer = LookupError("outer")
            outer.__cause__ = error
            error = outer
        with Loading(cache, pool, Loader(error), negative_ttl=60.0) as loading:
            one = pool.submit(cache.get_or_load, "key", lambda key: "loaded")
            await_waiters(waits, 1)
        assert loading.future.exception(TIMEOUT) is error
        assert one.result(TIMEOUT) == "loaded"
        assert "is not passed to other callers, as its LookupError cannot be copied" in caplog.text
        assert not has_exceptions(caplog.records)
        while error.__cause__ is not None:  # freed one by one
            inner, error.__cause__ = error.__cause__, None
            error = inner  # type: ignore[assignment]


class Refused(Exception):
    """Is pickled and not unpickled."""

    def __init__(self, *, code: int) -> None:
        super().__init__(code)


class TestUndecodable:
    @pytest.fixture(autouse=True)
    def bad(self, cache: Cache) -> None:
        cache["key"] = Refused(code=1)
        cache["other"] = Refused(code=1)

    def test_it_is_loaded_again(self, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
        assert cache.get_or_load("key", lambda key: "fresh") == "fresh"
        assert cache.get_or_load("key", lambda key: "again") == cache["key"] == "fresh"
        stats = cache.stats()
        assert (stats["undecodable"], stats["loads"]) == (1, 1)
        assert (stats["hits"], stats["misses"]) == (2, 1)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert warnings[0].message.startswith("key 'key' cannot be decoded and is loaded again: TypeError ")
        assert not has_exceptions(warnings)

    def test_of_many(self, cache: Cache) -> None:
        asked: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            asked.append(keys)
            return dict.fromkeys(keys, "fresh")

        cache["good"] = 1
        for _ in range(2):
            found = cache.get_many_or_load(["key", "good", "other"], load)
            assert found == {"key": "fresh", "good": 1, "other": "fresh"}
        assert asked == [["key", "other"]]

    def test_in_a_transaction(self, cache: Cache) -> None:
        with cache.store.transaction():
            assert cache.get_or_load("key", lambda key: "fresh") == cache["key"] == "fresh"
            assert cache.get_many_or_load(["other"], lambda keys: {"other": 1}) == {"other": 1}
        assert cache["key"] == "fresh"

    def test_of_a_memoized_function(self, cache: Cache) -> None:
        answers = iter([Refused(code=1), "fresh"])
        function = cache.memoize(lambda: next(answers))
        assert [type(function()), function(), function()] == [Refused, "fresh", "fresh"]
        assert function.cache_info()[:2] == (1, 2)

    def test_those_who_wait_for_it_load_it_themselves(
        self, cache: Cache, pool: ThreadPoolExecutor, waits: Any
    ) -> None:
        value = Refused(code=2)
        keep: Any = Loader(value)
        keep.value = "kept"
        with Loading(cache, pool, keep) as loading:
            keep.value = _Returned(value)
            one = pool.submit(cache.get_or_load, "key", lambda key: "fresh")
            many = pool.submit(cache.get_many_or_load, ["key"], lambda keys: dict.fromkeys(keys, "fresh"))
            await_waiters(waits, 2)
        assert loading.result() is keep.value
        assert (one.result(TIMEOUT), many.result(TIMEOUT)) == ("fresh", {"key": "fresh"})
        assert cache["key"] == "fresh"

    def test_what_is_set_meanwhile_and_cannot_be_decoded(self, cache: Cache) -> None:
        def load(key: str) -> str:
            cache["new"] = Refused(code=3)
            return "loaded"

        assert cache.get_or_load("new", load) == "loaded"


class _Returned:
    """A value that is pickled and not unpickled."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Refused, ()
