"""What tests are made of: operations and their arguments, what is compared, and errors."""

from __future__ import annotations

import queue
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis.strategies import integers, lists

import latchstore.stress
from latchstore.stress import Test, blocking_operation, invariant, operation
from tests.stress.any_class.subjects import (
    BlockingQueueTest,
    CounterTest,
    LockedCounter,
    LockedCounterTest,
    SoundQueueTest,
)

pytestmark = pytest.mark.timeout(120)


class Subject:
    """Notes what it is called with."""

    calls: list[Any]

    def __init__(self) -> None:
        self.calls = []

    def call(self, *arguments: Any) -> None:
        self.calls.append(arguments)


class SubjectTest(Test):
    __test__ = False
    seconds = 60.0
    schedules = 5

    def make(self) -> Any:
        return Subject()


class TestArguments:
    def test_strategies_of_hypothesis(self) -> None:
        seen: list[Any] = []

        class Drawn(SubjectTest):
            __test__ = False

            @operation(number=integers(3, 5), other=integers())
            def call(self, subject: Any, number: int, other: int) -> None:
                seen.append((number, other))

        Drawn.run()
        first = list(seen)
        assert {number for number, _ in first} <= {3, 4, 5}
        assert len({other for _, other in first}) > 5
        seen.clear()
        Drawn.run()
        assert sorted(set(seen)) == sorted(set(first)), "the same for the same seed"

    def test_calls_get_copies(self) -> None:
        class Spoils(SubjectTest):
            __test__ = False

            @operation(items=lists(integers(), min_size=1, max_size=2))
            def call(self, subject: Any, items: list[int]) -> int:
                items.append(0)
                return len(items)

            @operation(items=[[1, 2]])
            def listed(self, subject: Any, items: list[int]) -> int:
                items.append(0)
                return len(items)

        report = Spoils.run()
        assert report.answer != "invalid", str(report)

    def test_what_has_a_default_needs_no_values(self) -> None:
        class Defaults(SubjectTest):
            __test__ = False

            @operation()
            def call(self, subject: Any, number: int = 7) -> int:
                return number

        assert Defaults.run().answer != "invalid"


class TestErrors:
    @pytest.mark.parametrize(
        ("declared", "error", "message"),
        [
            ({}, TypeError, r"Wrong.call has an argument 'item', but @operation gives no values"),
            (
                {"item": [1], "other": [1]},
                TypeError,
                r"'other', which is not one of its arguments \(item\)",
            ),
            ({"item": "abc"}, TypeError, r"call: item must be a .* list of values, got 'abc'; .* \['abc'\]"),
            ({"item": 7}, TypeError, r"must be a Hypothesis strategy or a list of values, got 7"),
            ({"item": []}, ValueError, r"Wrong.call: item has no values"),
        ],
    )
    def test_arguments(self, declared: Any, error: type[Exception], message: str) -> None:
        class Wrong(SubjectTest):
            __test__ = False

            @operation(**declared)
            def call(self, subject: Any, item: int) -> None: ...

        with pytest.raises(error, match=message):
            Wrong.run()

    @pytest.mark.parametrize("declare", [operation, blocking_operation])
    def test_a_decorator_without_parentheses(self, declare: Any) -> None:
        with pytest.raises(TypeError, match=rf"write @{declare.__name__}\(\) with parentheses"):
            declare(self.test_no_operations)
        with pytest.raises(TypeError, match="each argument by its name"):
            declare([1, 2])

    def test_no_operations(self) -> None:
        with pytest.raises(TypeError, match=r"SubjectTest has no operations: declare methods"):
            SubjectTest.run()

    def test_an_operation_without_the_object(self) -> None:
        class Wrong(SubjectTest):
            __test__ = False

            @operation()
            def call(self) -> None: ...

        with pytest.raises(TypeError, match=r"Wrong.call must take the object under test: def call"):
            Wrong.run()

    def test_no_object(self) -> None:
        class Wrong(Test):
            __test__ = False

            @operation()
            def call(self, subject: Any) -> None: ...

        with pytest.raises(
            NotImplementedError, match=r"Wrong has no make\(\): define it, and return the object"
        ):
            Wrong.run()

    @pytest.mark.parametrize(("name", "value"), [("threads", 1), ("operations", 0), ("seconds", 0)])
    def test_numbers(self, name: str, value: int) -> None:
        wrong: Any = type("Wrong", (CounterTest,), {name: value, "__test__": False})
        with pytest.raises(ValueError, match=rf"^Wrong.{name} must be .*, got {value}"):
            wrong.run()

    @pytest.mark.parametrize(
        ("name", "value", "meant"),
        [
            ("thread", 3, "threads"),
            ("operation", 2, "operations"),
            ("second", 1.5, "seconds"),
            ("sched", None, None),
            ("shedules", 5, "schedules"),
            ("seeds", 7, "seed"),
            ("module", ["json"], "modules"),
            ("set_up", lambda self, subject: None, "setup"),
            ("tear_down", lambda self, subject: None, "teardown"),
            ("validates", lambda self, subject: None, "validate"),
            # The user's own: of another type or signature, a compound, a constant.
            ("seeds", [1, 2], None),
            ("model_", "fast", None),
            ("mode", "fast", None),
            ("max_threads", 4, None),
            ("THREADS", 4, None),
            ("states", lambda self: None, None),
            ("capacity", 4, None),
        ],
    )
    def test_misspelt_attributes(self, name: str, value: Any, meant: str | None) -> None:
        kind: Any = type("Misspelt", (LockedCounterTest,), {"__test__": False, "schedules": 1, name: value})
        if meant is None:
            kind.run()
            return
        with pytest.raises(TypeError, match=f"^Misspelt.{name} has no effect: .* did you mean {meant!r}"):
            kind.run()

    def test_an_attribute_that_the_test_uses_is_not_misspelt(self) -> None:
        class Pooled(LockedCounterTest):
            __test__ = False
            schedules = 1
            thread = 3

            def setup(self, subject: Any) -> None:
                assert self.thread == 3

        Pooled.run()

    def test_the_class_of_the_model_is_not_misspelt(self) -> None:
        class Modelled(LockedCounterTest):
            __test__ = False
            schedules = 1

            class Model:
                initial = 0

                def step(self, state: int, call: Any, answer: Any) -> Any:
                    return state + 1

            model = Model()

        Modelled.run()

    def test_calls_that_never_meet_are_not_valid(self) -> None:
        class Alone(SoundQueueTest):
            __test__ = False
            schedules = 1
            operations = 1

            def put(self, subject: Any, item: int) -> None: ...

            @operation()
            def get(self, subject: Any) -> int:
                return 0

        report = Alone.run()
        assert (report.answer, report.passed) == ("unknown", False)
        assert report.reason == "no two calls overlapped, so nothing was proved"

    def test_calls_that_all_fail_are_told(self) -> None:
        class Fails(LockedCounterTest):
            __test__ = False
            schedules = 20

            @operation()
            def increment(self, counter: Any) -> int:
                return int(counter.incremented())

        assert "note: every call of increment raised an exception" in str(Fails.run())


class TestWhatIsCompared:
    def test_exceptions_by_class(self) -> None:
        class Fails(LockedCounterTest):
            __test__ = False

            @operation()
            def increment(self, counter: Any) -> int:
                raise queue.Full(super().increment(counter))

            @operation()
            def look(self, counter: Any) -> bool:
                return bool(counter.value >= 0)

        assert Fails.run().answer == "valid"

    def test_exceptions_as_the_test_describes_them(self) -> None:
        class Fails(CounterTest):
            __test__ = False

            @operation()
            def increment(self, counter: Any) -> int:
                raise ValueError(super().increment(counter))

            def describe_error(self, error: BaseException) -> object:
                return error.args

        assert "would raise ValueError: 2, but it raised ValueError: 1" in str(Fails.run())

    def test_results_as_the_test_describes_them(self) -> None:
        class Blind(CounterTest):
            __test__ = False
            schedules = 50

            def describe(self, result: Any) -> object:
                return None

        assert Blind.run().answer == "valid"

    def test_setup_validate_and_teardown(self) -> None:
        made, set_up, closed = [], [], []

        class Closed(LockedCounterTest):
            __test__ = False
            schedules = 10

            def make(self) -> Any:
                made.append(LockedCounter())
                return made[-1]

            def setup(self, subject: Any) -> None:
                set_up.append(subject)

            def teardown(self, subject: Any) -> None:
                closed.append(subject)

        assert Closed.run().answer == "valid"
        assert set(map(id, closed)) == set(map(id, made))
        assert set(map(id, set_up)) <= set(map(id, made))

        class Invalid(LockedCounterTest):
            __test__ = False

            def validate(self, subject: Any) -> None:
                assert subject.value < 0, "it is not"

        report = Invalid.run()
        assert report.reason.startswith("validation: ")
        assert "AssertionError: it is not" in str(report)

    def test_an_invariant_that_raises(self) -> None:
        class Broken(LockedCounterTest):
            __test__ = False

            @invariant()
            def small(self, counter: Any) -> None:
                assert counter.value < 2

        report = Broken.run()
        assert report.reason.startswith("invariant: small does not hold: AssertionError: ")
        assert "assert counter.value < 2" in str(report)

    def test_what_blocks_is_not_called_by_native_threads_if_that_is_declared(self) -> None:
        class Declared(BlockingQueueTest):
            __test__ = False

            @blocking_operation(item=range(9))
            def put(self, subject: Any, item: int) -> None:
                super().put(subject, item)

            @blocking_operation()
            def get(self, subject: Any) -> int:
                return super().get(subject)

        report = Declared.run()
        assert report.answer == "valid"
        assert report.native == 0

    def test_contents_not_identities(self) -> None:
        @dataclass
        class Point:
            x: int
            tags: list[str]

        class Slotted:
            __slots__ = ("x",)

            def __init__(self, x: int) -> None:
                self.x = x

        endless: list[Any] = []
        endless.append(endless)
        describe = SubjectTest().describe
        equal: list[Any] = [
            lambda: Point(1, ["a"]),
            lambda: Slotted(1),
            lambda: [{"a": {1, 2}}, deque([1]), Counter("ab")],
            lambda: float("nan"),
            lambda: ValueError("x", [1]),
            lambda: bytearray(b"x"),
            lambda: endless,
            object,
        ]
        for make in equal:
            assert describe(make()) == describe(make())
            hash(describe(make()))
        different = [
            1,
            True,
            "1",
            b"1",
            [1],
            (1,),
            {1},
            {1: 1},
            OrderedDict(a=1, b=2),
            OrderedDict(b=2, a=1),
            Point(1, []),
            Point(2, []),
            Slotted(1),
            Slotted(2),
            ValueError("1"),
            ValueError("2"),
            TypeError("1"),
            None,
        ]
        described = [describe(value) for value in different]
        assert len(set(map(repr, described))) == len(different)
        assert all(one != other for place, one in enumerate(described) for other in described[:place])


def test_the_public_names() -> None:
    for name in latchstore.stress.__all__:
        assert getattr(latchstore.stress, name) is not None
        assert name in dir(latchstore.stress)
    with pytest.raises(AttributeError, match="no attribute 'Tests'"):
        getattr(latchstore.stress, "Tests")  # noqa: B009


@pytest.mark.parametrize("name", ["run", "state", "describe"])
def test_an_operation_has_no_name_of_test(name: str) -> None:
    def call(self: Any, subject: Any) -> None:
        """Nothing."""

    with pytest.raises(
        TypeError, match=f"OwnTest.{name} cannot be an operation.* name it do_{name}, for example"
    ):
        type("OwnTest", (Test,), {name: operation()(call)})
