"""Memoized functions are functions: identity, binding, copies, arguments, types; and their counts."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import inspect
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from latchstore import Cache
from latchstore.cache.memoizing import CacheInfo
from tests.cache.clocks import TIMEOUT
from tests.fork.children import in_child
from tests.schedules import run_threads


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: Any
    text: str
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    number: int
    text: str


MODULE_CACHE = Cache(max_entries=100)


@MODULE_CACHE.memoize
def doubled(number: int) -> int:
    return 2 * number


@dataclasses.dataclass
class Article:
    number: int

    @MODULE_CACHE.memoize
    def price(self, currency: str = "EUR") -> str:
        """Its price."""
        return f"{self.number} {currency}"


class Special(Article):
    pass


class Adding:
    def __init__(self, more: int) -> None:
        self._first = self._own = self.cache_key = more  # names of a memoized function's own

    def __call__(self, number: int) -> int:
        return number + self._first


class TestIdentity:
    def test_wrappers_of_one_name(self, cache: Cache) -> None:
        def scaled(by: int) -> Callable[[int], int]:
            @functools.wraps(doubled)
            def wrapper(number: int) -> int:
                return number * by

            return wrapper

        two, three = cache.memoize(scaled(2)), cache.memoize(scaled(3))
        assert (two(1), three(1), two(1)) == (2, 3, 2)

    def test_a_function_that_is_defined_again(self, cache: Cache) -> None:
        """As in a notebook."""
        names: dict[str, Any] = {"cache": cache, "__name__": "notebook"}
        answers = []
        for answer in (1, 2):
            exec(f"@cache.memoize\ndef answer():\n    return {answer}", names)
            answers.append(names["answer"]())
        assert answers == [1, 2]

    def test_one_function_that_is_decorated_twice(self, cache: Cache) -> None:
        def pair(a: int, b: int) -> tuple[int, int]:
            return a, b

        by_first, by_second = (
            cache.memoize(key=lambda a, b: a)(pair),
            cache.memoize(key=lambda a, b: b)(pair),
        )
        assert (by_first(1, 2), by_second(2, 1)) == ((1, 2), (2, 1))

    def test_classes_of_one_name(self, cache: Cache) -> None:
        class Table:
            label = ""

            @classmethod
            @cache.memoize
            def title(cls) -> str:
                return cls.label

        models: list[Any] = [type("Model", (Table,), {"label": label}) for label in ("first", "second")]
        first, second = models
        assert (first.title(), second.title(), first.title()) == ("first", "second", "first")

        @cache.memoize
        def value_of(what: Any) -> Any:
            return what.value if isinstance(what, enum.Enum) else what.label

        members: list[Any] = [enum.Enum("Color", {"RED": number}).RED for number in (1, 2)]  # type: ignore[attr-defined]
        assert [value_of(member) for member in members] == [1, 2]
        assert (value_of(first), value_of(second)) == ("first", "second")
        made = [dataclasses.make_dataclass("Point", ["label"], frozen=True) for _ in range(2)]
        assert len({value_of.cache_key(cls("x")) for cls in made}) == 2

    def test_a_name_of_its_own(self, cache: Cache) -> None:
        one = cache.memoize(name="price")(lambda number: number)
        two = cache.memoize(name="price")(lambda number: pytest.fail("its result is there"))
        assert one(1) == two(1) == 1
        assert two.cache_key(1) == "price(number=1)"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_functions_that_processes_make_after_a_fork(self, cache: Cache) -> None:
        def key_of_another() -> str:
            return cache.memoize(len).cache_key("")

        read, write = os.pipe()
        assert in_child(lambda: os.write(write, key_of_another().encode())) == ""
        os.close(write)
        with os.fdopen(read) as pipe:
            assert pipe.read() != key_of_another()


class TestLikeFunctions:
    def test_what_is_bound_is_like_a_method(self, cache: Cache) -> None:
        article = Article(1)
        method = article.price
        assert method == article.price != Article(1).price
        assert hash(method) == hash(article.price)
        assert method != "another"
        assert (method.__self__, method.__func__) == (article, Article.price)
        assert (method.__doc__, method.__qualname__) == ("Its price.", "Article.price")
        assert list(inspect.signature(method).parameters) == ["currency"]
        assert "price of Article" in repr(method)
        assert method() == article.price("EUR") == "1 EUR"
        assert copy.copy(method) == method
        twin = copy.deepcopy(method)
        assert twin.__func__ is Article.price
        assert twin.__self__ is not article
        assert twin.__self__ == article
        assert pickle.loads(pickle.dumps(method))() == "1 EUR"
        assert super(Special, Special(2)).price() == "2 EUR"
        assert super(Special, Special(2)).price.cache_key() != Special.price.cache_key(Special(2))

    def test_it_is_copied_and_pickled_by_its_name(self, cache: Cache) -> None:
        assert copy.copy(doubled) is copy.deepcopy({"it": doubled})["it"] is doubled
        assert pickle.loads(pickle.dumps(doubled)) is doubled
        assert pickle.loads(pickle.dumps(Article.price)) is Article.price

        @cache.memoize
        def local() -> None: ...

        assert copy.deepcopy(local) is local
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(local)

    def test_callable_objects(self, cache: Cache) -> None:
        add = cache.memoize(Adding(2))
        assert add(1) == add(number=1) == 3
        assert add.cache_info()[:2] == (1, 1)
        assert add.invalidate(1)
        assert cache.memoize(Adding(3))(1) == 4
        smallest = cache.memoize(functools.partial(min, 5))
        assert (smallest(7, 3), smallest(7, 9), smallest.invalidate(7, 3)) == (3, 5, True)
        assert cache.memoize(Article(1).price)("USD") == "1 USD"
        assert cache.memoize(len)("abc") == 3

        class Holder:
            adding = cache.memoize(Adding(2))  # is not bound, as the object would not be

        assert Holder().adding(1) == 3

    @pytest.mark.parametrize("name", ["self", "cls", "args", "kwargs", "key", "function", "instance"])
    def test_an_argument_may_have_any_name(self, cache: Cache, name: str) -> None:
        @cache.memoize(tags=lambda rel, **more: ["tag"], key=lambda rel, **more: sorted(more.items()))
        def keyed(rel: str, **more: str) -> str:
            return rel + more[name]

        names: dict[str, Any] = {}
        exec(f"def link(rel, {name}=None): return rel, {name}\ndef alone({name}): return {name}", names)
        link, alone = cache.memoize(names["link"]), cache.memoize(names["alone"])
        assert link("x", **{name: "y"}) == ("x", "y")
        assert link.invalidate("x", **{name: "y"})
        assert alone("y") == alone(**{name: "y"}) == "y"
        assert keyed("x", **{name: "y"}) == "xy"
        assert keyed.cache_key("x", **{name: "y"})

    def test_it_has_attributes(self, cache: Cache) -> None:
        def function() -> None: ...

        function.kept = 1  # type: ignore[attr-defined]
        kept: Any = cache.memoize(function)
        kept.more = 2
        assert (kept.kept, kept.more, kept.__wrapped__) == (1, 2, function)

    def test_one_frame_is_between_the_call_and_the_function(self, cache: Cache) -> None:
        """So recursion is as deep as a function in Python can be that keeps results."""
        callers: list[list[str]] = []

        def outer() -> None:
            frame: Any = sys._getframe()
            callers.append([frame.f_back.f_code.co_name, frame.f_back.f_back.f_code.co_name])

        class Thing:
            method = cache.memoize(lambda self: outer())

        def call() -> None:
            cache.memoize(outer)()
            cache.get_or_load("key", lambda key: outer())
            with cache.store.transaction():
                cache.memoize(outer)()

        call()
        assert callers == [["__call__", "call"], ["<lambda>", "get_or_load"], ["__call__", "call"]]
        Thing().method()
        assert callers[3] == ["<lambda>", "__call__"]

    def test_recursion(self, cache: Cache) -> None:
        @cache.memoize
        def down(number: int) -> int:
            return number and 1 + down(number - 1)

        assert down(300) == 300


class TestArguments:
    @pytest.mark.parametrize(
        "values",
        [
            (date(2026, 1, 2), datetime(2026, 1, 2), time(1, 2), timedelta(1), "2026-01-02"),
            (
                datetime(2026, 1, 2),
                datetime(2026, 1, 2, fold=1),
                datetime(2026, 1, 2, tzinfo=UTC),
                datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))),
                datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
                datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Paris")),
                time(1, tzinfo=UTC),
                time(1),
            ),
            (UUID(int=1), UUID(int=2), str(UUID(int=1))),
            (Decimal("1.0"), Decimal("1.00"), 1.0, Fraction(1)),
            (PurePosixPath("a"), PureWindowsPath("a"), Path("a"), Path("b"), "a"),
            (Frozen(1, "a"), Frozen(1, "b"), Frozen(2, "a"), Point(1, "a"), (1, "a")),
            (int, str, Frozen, Point, Colour),
        ],
    )
    def test_different_ones_have_different_keys(self, cache: Cache, values: tuple[Any, ...]) -> None:
        @cache.memoize
        def function(value: object) -> object:
            return value

        keys = [function.cache_key(value) for value in values]
        assert len(set(keys)) == len(values)
        assert [function.cache_key(value) for value in copy.deepcopy(values)] == keys
        assert [function([value])[0] for value in values] == list(values)  # type: ignore[index]

    def test_zones_of_others_are_told_by_identity(self, cache: Cache) -> None:
        class Zone(tzinfo):
            def utcoffset(self, when: datetime | None) -> timedelta:
                return timedelta(0)

            tzname = dst = utcoffset  # type: ignore[assignment]

            def __repr__(self) -> str:
                return "Zone()"

        function = cache.memoize(lambda when: 1)
        zones = Zone(), Zone()
        keys = {function.cache_key(datetime(2026, 1, 2, tzinfo=zone)) for zone in zones * 2}
        assert len(keys) == 2

    def test_dataclasses(self, cache: Cache) -> None:
        function = cache.memoize(lambda value: 1)
        assert function.cache_key(Frozen(1, "a", "x")) == function.cache_key(Frozen(1, "a", "y"))

        @dataclasses.dataclass
        class Thawed:
            number: int

        @dataclasses.dataclass(frozen=True, eq=False)
        class Unequal:
            number: int

        class Derived(Frozen):
            pass

        for value in (Thawed(1), Unequal(1), Derived(1, "a"), Frozen([object()], "a")):
            with pytest.raises(TypeError, match="must be a plain value"):
                function(value)

    def test_a_class_that_only_has_the_name_of_a_plain_one(self, cache: Cache) -> None:
        forged = type("UUID", (), {"__module__": "uuid", "__repr__": lambda self: "UUID('1')"})
        odd = type("Odd", (), {"__module__": 7})
        function = cache.memoize(lambda value: 1)
        for value in (forged(), odd()):
            with pytest.raises(TypeError, match="must be a plain value"):
                function(value)

    def test_the_instance_of_a_frozen_dataclass_is_told_by_identity(self, cache: Cache) -> None:
        @dataclasses.dataclass(frozen=True)
        class Reader:
            number: int
            source: list[int] = dataclasses.field(default_factory=list, compare=False)

            @cache.memoize
            def read(self) -> list[int]:
                return self.source

        one, two = Reader(1, [1]), Reader(1, [2])
        assert (one.read(), two.read()) == ([1], [2])


class TestInfoAndClear:
    def test_counts_are_the_functions_own(self, cache: Cache) -> None:
        one, two = cache.memoize(lambda number: number), cache.memoize(lambda number: number)
        assert one.cache_info() == (0, 0, None, 0)
        one(1), one(1), one(2), two(1)
        assert one.cache_info() == CacheInfo(hits=1, misses=2, maxsize=None, currsize=2)
        assert two.cache_info() == (0, 1, None, 1)
        one.invalidate(1)
        assert one.cache_info().currsize == 1
        assert doubled.cache_info().maxsize == 100

    def test_calls_that_fail_are_misses(self, cache: Cache) -> None:
        @cache.memoize
        def fail() -> None:
            raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                fail()
        assert fail.cache_info() == (0, 2, None, 0)

    def test_threads_count_exactly(self, cache: Cache) -> None:
        function = cache.memoize(lambda number: number)

        def body() -> None:
            for number in range(200):
                function(number)

        run_threads([body] * 8)
        assert function.cache_info()[:2] == (1_400, 200)

    def test_clearing_forgets_the_functions_results_alone(self, cache: Cache) -> None:
        one, two = cache.memoize(lambda number: number), cache.memoize(lambda number: number)
        one(1), one("x" * 1_000), two(1)
        cache["other"] = 1
        one.cache_clear()
        assert one.cache_info() == (0, 0, None, 0)
        assert sorted(cache) == sorted(["other", two.cache_key(1)])
        assert one(1) == 1

    def test_a_name_with_the_characters_of_patterns(self, cache: Cache) -> None:
        for name in ("[a]*", "?", "a"):
            cache.memoize(name=name)(lambda: 1)()
        cache.memoize(name="[a]*")(lambda: 1).cache_clear()
        assert sorted(cache) == ["?()", "a()"]

    def test_a_call_that_runs_does_not_bring_its_result_back(self, cache: Cache) -> None:
        entered, go_on = threading.Event(), threading.Event()
        answers = iter(["old", "new"])

        @cache.memoize
        def function() -> str:
            answer = next(answers)
            entered.set()
            assert go_on.wait(TIMEOUT)
            return answer

        with ThreadPoolExecutor(1) as pool:
            old = pool.submit(function)
            assert entered.wait(TIMEOUT)
            function.cache_clear()
            go_on.set()
            assert old.result(TIMEOUT) == "old"
        assert function() == "new"

    def test_failures_are_forgotten(self, cache: Cache) -> None:
        answers: Iterator[Any] = iter([ZeroDivisionError(), 1])

        @cache.memoize(negative_ttl=60.0)
        def function() -> int:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return int(answer)

        with pytest.raises(ZeroDivisionError):
            function()
        function.cache_clear()
        assert function() == 1

    def test_of_a_method_it_is_that_of_all_instances(self, cache: Cache) -> None:
        class Thing:
            @cache.memoize
            def number(self) -> int:
                return 1

        one, two = Thing(), Thing()
        one.number(), two.number(), two.number()
        assert one.number.cache_info() == Thing.number.cache_info() == (1, 2, None, 2)
        one.number.cache_clear()
        assert len(cache) == 0
