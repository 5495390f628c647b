"""Functions whose results are kept: which calls are the same, and what is forgotten when."""

from __future__ import annotations

import dataclasses
import enum
import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latchstore import Cache
from latchstore.cache.argument_keys import numbers
from latchstore.cache.memoizing import Memoized
from tests.cache.clocks import TIMEOUT, Clock
from tests.schedules import run_threads


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


def with_locals(cache: Cache, value: int) -> Memoized[[], int]:
    @cache.memoize()
    def inner() -> int:
        return value

    return inner


class TestFunctions:
    def test_a_result_is_computed_once(self, cache: Cache) -> None:
        calls: list[Any] = []

        @cache.memoize()
        def add(a: int, b: int = 2, *, c: int = 3) -> int:
            """Add numbers."""
            calls.append((a, b, c))
            return a + b + c

        for _ in range(2):
            assert add(1) == add(1, 2) == add(a=1, b=2) == add(b=2, c=3, a=1) == 6
        assert calls == [(1, 2, 3)]
        assert add(1, c=4) == 7
        assert len(calls) == 2
        told: Any = add
        assert (told.__name__, told.__doc__, told.__wrapped__(1)) == ("add", "Add numbers.", 6)
        assert list(inspect.signature(add).parameters) == ["a", "b", "c"]

    def test_more_arguments(self, cache: Cache) -> None:
        @cache.memoize()
        def told(*args: Any, **kwargs: Any) -> str:
            return repr((args, kwargs))

        assert told.cache_key(1, a=2, b=3) == told.cache_key(1, b=3, a=2)
        keys = [told.cache_key(), told.cache_key((1, 2)), told.cache_key(1, 2), told.cache_key(args=(1, 2))]
        assert len(set(keys)) == 4
        assert told(1, b=2) == "((1,), {'b': 2})"

    @pytest.mark.parametrize(
        "values",
        [
            (1, 1.0, True, 1 + 0j, "1", b"1", None, "None"),
            ((), [], {}, set(), frozenset(), ((),)),
            ((1, 2), [1, 2], (12,), ("1, 2",), ("1", "2")),
            ({1: 2}, {"1": 2}, {1: "2"}, {1, 2}),
            (Colour.RED, Colour.GREEN, 1, Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)),
            ("x" * 1_000, "x" * 999 + "y", "\ud800" * 300),
        ],
    )
    def test_different_arguments_have_different_keys(self, cache: Cache, values: tuple[Any, ...]) -> None:
        @cache.memoize()
        def function(value: object) -> object:
            return value

        keys = [function.cache_key(value) for value in values]
        assert len(set(keys)) == len(values)
        assert all(len(key) < 400 for key in keys)
        assert [function(value) for value in values] == list(values)

    def test_the_order_of_dicts_and_sets_is_nothing(self, cache: Cache) -> None:
        @cache.memoize()
        def function(value: object) -> None: ...

        assert function.cache_key({"a": 1, "b": 2}) == function.cache_key({"b": 2, "a": 1})
        assert function.cache_key({"a", "b", "c"}) == function.cache_key({"c", "b", "a"})

    def test_what_is_not_plain_is_refused(self, cache: Cache) -> None:
        @cache.memoize()
        def function(value: object) -> None: ...

        for value in (object(), [object()], type("Text", (str,), {})("x")):
            with pytest.raises(TypeError, match=r"argument 'value' of .*function\S* must be a plain value"):
                function(value)
        with pytest.raises(TypeError, match="missing a required argument: 'value'"):
            function()  # type: ignore[call-arg]

    def test_key(self, cache: Cache) -> None:
        @cache.memoize(key=lambda value, *rest: (len(value), rest))
        def function(value: list[object], *rest: int) -> int:
            return id(value)

        first, second = [object()], [object()]
        assert function(first) == function(second) == id(first)
        assert function(first, 1) != function([], 1)
        assert function.invalidate(second)
        assert function(second) == id(second)

        @cache.memoize(key=lambda value: object())
        def other(value: int) -> int:
            return value

        with pytest.raises(TypeError, match="the result of key must be a plain value"):
            other(1)

    def test_functions_of_one_name_are_told_apart(self, cache: Cache) -> None:
        first, second = with_locals(cache, 1), with_locals(cache, 2)
        assert (first(), second(), first()) == (1, 2, 1)

    def test_none_is_a_result(self, cache: Cache) -> None:
        calls: list[int] = []

        @cache.memoize()
        def function(number: int) -> None:
            calls.append(number)

        assert function(1) is function(1) is None
        assert calls == [1]

    def test_exceptions_are_raised_and_not_kept(self, cache: Cache, clock: Clock) -> None:
        calls: list[int] = []

        def fail(number: int) -> int:
            calls.append(number)
            raise ZeroDivisionError(number)

        function, remembered = (
            cache.memoize()(fail),
            cache.memoize(negative_ttl=5.0, key=lambda n: ("r", n))(fail),
        )
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                function(1)
        assert calls == [1, 1]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                remembered(2)
        assert calls == [1, 1, 2]
        assert not remembered.invalidate(2)  # but the failure is forgotten
        with pytest.raises(ZeroDivisionError):
            remembered(2)
        assert calls == [1, 1, 2, 2]

    def test_ttl_and_invalidate(self, cache: Cache, clock: Clock) -> None:
        calls: list[int] = []

        @cache.memoize(ttl=10.0)
        def function(number: int, other: int = 0) -> int:
            calls.append(number)
            return number

        function(1)
        assert cache.remaining(function.cache_key(1)) == 10.0
        assert cache[function.cache_key(1, other=0)] == 1
        clock.now += 10
        function(1)
        assert calls == [1, 1]
        assert function.invalidate(number=1)
        assert not function.invalidate(1)
        function(1)
        assert calls == [1, 1, 1]

    def test_tags(self, cache: Cache) -> None:
        @cache.memoize(tags=["all"])
        def one(number: int) -> int:
            return number

        @cache.memoize(tags=lambda number, more=0: ["all", f"number {number}"])
        def two(number: int, more: int = 0) -> int:
            return number

        def fill() -> None:
            one(1), two(1), two(1, more=1), two(2)

        fill()
        assert len(cache) == 4
        assert cache.invalidate_tag("number 1") == 2
        assert sorted(cache) == sorted([one.cache_key(1), two.cache_key(2)])
        fill()
        assert cache.invalidate_tag("all") == 4

    def test_concurrent_calls_are_one(self, cache: Cache) -> None:
        calls: list[int] = []
        begun = threading.Event()

        @cache.memoize()
        def function(number: int) -> int:
            calls.append(number)
            begun.set()
            return number

        def body() -> None:
            assert function(1) == 1
            assert begun.wait(TIMEOUT)

        run_threads([body] * 16)
        assert calls == [1]

    def test_what_is_memoized_twice_has_two_caches(self, cache: Cache) -> None:
        calls: list[int] = []
        with Cache() as outer:

            @outer.memoize()
            @cache.memoize()
            def function(number: int) -> int:
                calls.append(number)
                return number

            assert function(1) == function(1) == 1
            assert (len(outer), len(cache), calls) == (1, 1, [1])
            outer.clear()
            assert function(1) == 1
            assert (len(outer), calls) == (1, [1])

    def test_what_cannot_be_memoized(self, cache: Cache) -> None:
        async def coroutine() -> None: ...

        def generator() -> Iterator[int]:
            yield 1

        for function in (coroutine, generator):
            with pytest.raises(TypeError, match="only once"):
                cache.memoize()(function)
        kept: list[Any] = [classmethod(len), staticmethod(len)]  # type: ignore[arg-type]
        for decorated in kept:
            with pytest.raises(TypeError, match="must be placed below @"):
                cache.memoize()(decorated)
        for other in (3, int):
            with pytest.raises(TypeError, match="takes a function or method"):
                cache.memoize()(other)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="key must be callable"):
            cache.memoize(key="key")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="tags"):
            cache.memoize(tags="tag")


class TestMethods:
    def test_each_instance_has_its_own(self, cache: Cache) -> None:
        @dataclasses.dataclass
        class Shop:
            name: str

            @cache.memoize()
            def price(self, what: str, currency: str = "EUR") -> str:
                return f"{what} at {self.name} in {currency}"

        one, two = Shop("one"), Shop("two")
        assert one.price("tea") == one.price(what="tea") == "tea at one in EUR"
        assert two.price("tea", currency="USD") == "tea at two in USD"
        assert one.price.cache_key("tea") == Shop.price.cache_key(one, "tea")
        assert one.price.cache_key("tea") != two.price.cache_key("tea")
        assert len(cache) == 2
        assert two.price.invalidate("tea", "USD")
        assert not two.price.invalidate("tea", "USD")
        assert Shop.price(one, "tea") == "tea at one in EUR"
        assert one.price.__name__ == "price"
        # Equal ones are different ones.
        assert Shop("one").price.cache_key("tea") != one.price.cache_key("tea")

    def test_an_address_that_is_used_again_is_another_instance(self, cache: Cache) -> None:
        class Thing:
            @cache.memoize()
            def number(self) -> int:
                return 1

        before = len(numbers.known)
        keys = {Thing().number.cache_key() for _ in range(100)}
        assert len(keys) == 100
        gc.collect()
        assert len(numbers.known) <= before + 1  # the class's own

    def test_threads_give_an_instance_one_number(self, cache: Cache) -> None:
        class Thing:
            @cache.memoize()
            def number(self) -> int:
                return 1

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(50):
                thing = Thing()
                keys: list[str] = []
                run_threads([lambda thing=thing, keys=keys: keys.append(thing.number.cache_key())] * 4)  # type: ignore[misc]
                assert len(set(keys)) == 1
        finally:
            sys.setswitchinterval(interval)

    def test_without_weak_references_a_key_is_needed(self, cache: Cache) -> None:
        class Slim:
            __slots__ = ("name",)

            def __init__(self, name: str) -> None:
                self.name = name

            @cache.memoize()
            def refused(self) -> str:
                return self.name

            @cache.memoize(key=lambda self: self.name)
            def kept(self) -> str:
                return self.name

        with pytest.raises(TypeError, match="self must allow weak references"):
            Slim("one").refused()
        assert (Slim("one").kept(), Slim("two").kept()) == ("one", "two")

    def test_class_and_static_methods(self, cache: Cache) -> None:
        calls: list[object] = []

        class Typed:
            @classmethod
            @cache.memoize()
            def of_class(cls, number: int = 0) -> str:
                calls.append(cls)
                return f"{cls.__name__} {number}"

            @staticmethod
            @cache.memoize()
            def of_none(number: int) -> int:
                calls.append(number)
                return number

        class Derived(Typed):
            pass

        for _ in range(2):
            assert Typed.of_class(number=1) == Typed().of_class(1) == "Typed 1"
            assert Derived.of_class(1) == "Derived 1"
            assert Typed.of_none(5) == Derived().of_none(number=5) == 5
        assert calls == [Typed, Derived, 5]
        assert Typed.of_none.invalidate(5)
        assert not Derived.of_none.invalidate(5)
        assert Typed.of_class.invalidate(1)
        assert not Typed().of_class.invalidate(number=1)
        assert Derived.of_class.cache_key(1) != Typed.of_class.cache_key(1)
        assert Typed.of_class(1) == "Typed 1"
        assert calls == [Typed, Derived, 5, Typed]
        assert Typed.of_class.cache_info()[:2] == (4, 3)
        assert [name for name in vars(Typed) if not name.startswith("__")] == ["of_class", "of_none"]

    def test_class_methods_below_decorators_and_in_other_bodies(self, cache: Cache) -> None:
        def decorated(function: Callable[..., Any]) -> Memoized[..., Any]:
            return cache.memoize(function)

        class Level(enum.Enum):
            LOW = 1

            @classmethod
            @decorated
            def lowest(cls) -> Any:
                return cls.LOW.name

            @classmethod
            @cache.memoize
            def number(cls, name: str) -> Any:
                return cls[name].value

        @dataclasses.dataclass(slots=True)  # which makes the class again
        class Slim:
            number: int

            @classmethod
            @cache.memoize
            def make(cls, number: int) -> str:
                return f"{cls.__name__} {number}"

        assert (Level.lowest(), Level.number("LOW"), Slim.make(1)) == ("LOW", 1, "Slim 1")
        assert list(Level) == [Level.LOW]
        assert Level.lowest.invalidate()
        assert Level.number.invalidate("LOW")
        assert Slim.make.invalidate(1)

    def test_the_first_argument_may_have_any_name(self, cache: Cache) -> None:
        class Thing:
            @cache.memoize
            def name(this, more: int = 0) -> int:
                return id(this)

        one, two = Thing(), Thing()
        assert (one.name(), two.name(more=0), one.name(0)) == (id(one), id(two), id(one))
        assert Thing.name.cache_key(one) == one.name.cache_key()
