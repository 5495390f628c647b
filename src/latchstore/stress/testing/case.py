"""`Test`, the base class of users' tests.

Thread safety: see `Definition`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.exploration import explore
from latchstore.stress.testing.report import Report


class Test(Definition):
    """A test of a class under threads.

    Threads call the operations on one object. The test passes if some order of the calls, made one after the
    other by one thread on a fresh object, gives each call the same result or exception, and respects real
    time: a call that returned before another one began comes first. That is linearizability (Herlihy and
    Wing, "Linearizability: a correctness condition for concurrent objects", ACM TOPLAS 12(3), 1990).

    A subclass defines `make`, operations, and any of the methods below. pytest collects it; ``python -m
    latchstore stress --test module:Class`` runs it in a shell, `run` in Python.

    Attributes
    ----------
    threads, operations : int
        Maximum number of threads, and maximum number of calls of each, in one schedule. Small numbers find
        most defects, and give readable reports.
    seconds : float
        Duration of the search for a failing schedule.
    schedules : int or None
        Maximum number of schedules; None for no limit.
    seed : int
        Seed of all random choices.
    modules : sequence of str
        Packages and modules in whose code threads switch; by default those of the object's class.
    model : Model or None
        Defines the correct answers, in place of a `reference` object. Its ``step(state, call, answer)`` gets
        a call with ``name`` and ``arguments``, and its result, a `Raised`, or `WAITING` if it waits forever;
        it returns the next state, or `REFUSED` if that answer is impossible.

    Thread safety
    -------------
    One test at a time runs in a process, as the locks of the standard library are replaced meanwhile.

    Examples
    --------
    >>> from latchstore.stress import Test, operation
    >>> class Counter:
    ...     value = 0
    ...
    ...     def increment(self):
    ...         self.value += 1
    ...         return self.value
    >>> class CounterTest(Test):
    ...     seconds = 2
    ...
    ...     def make(self):
    ...         return Counter()
    ...
    ...     @operation()
    ...     def increment(self, counter):
    ...         return counter.increment()
    >>> CounterTest.run().passed
    False
    """

    #: Keeps pytest from collecting this class itself where a test module imports it.
    __test__: ClassVar[bool] = False

    @classmethod
    def run(
        cls,
        *,
        seconds: float | None = None,
        schedules: int | None = None,
        seed: int | None = None,
        progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Run the test in this thread.

        Parameters
        ----------
        seconds, schedules, seed : optional
            Override the attributes of the class.
        progress : callable, optional
            Called after each schedule with the current report.

        Returns
        -------
        report : Report
            The result; prints as text.

        Raises
        ------
        TypeError, ValueError
            If the test is not defined correctly; the message names the method.
        """
        return explore(cls(), seconds=seconds, schedules=schedules, seed=seed, progress=progress)
