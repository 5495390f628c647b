"""What users derive their tests from.

Thread safety: as `Definition`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from latchstore.stress.testing.definition import Definition
from latchstore.stress.testing.exploration import Report, explore


class Test(Definition):
    """A test of a class under threads.

    Threads call the operations on one object. The test passes if some order of the calls, one after the other
    in one thread on a fresh object, gives each call what it returned or raised, and keeps to real time: a
    call that had returned before another one began comes first. That is linearizability (Herlihy and Wing,
    "Linearizability: a correctness condition for concurrent objects", ACM TOPLAS 12(3), 1990).

    A subclass has `make`, operations, and whatever else of the methods below it needs. pytest collects it;
    ``python -m latchstore stress --test module:Class`` runs it in a shell, `run` in Python.

    Attributes
    ----------
    threads, operations : int
        How many threads there are at the most, and how many calls each of them makes at the most, in one
        schedule. A few are enough for most defects, and keep what is shown of them readable.
    seconds : float
        How long schedules are tried.
    schedules : int or None
        How many are tried at the most.
    seed : int
        Of all that is drawn at random.
    modules : sequence of str
        Packages and modules within whose code threads are switched; by default those that the class of the
        object is in.
    model : Model or None
        What the right answers are, in place of a `reference` object. Its ``step(state, call, answer)`` gets a
        call with a ``name`` and ``arguments``, and what it returned, `Raised`, or `WAITING` if it waits for
        ever; it returns the state after it, or `REFUSED` if that cannot be.

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

    #: So that pytest does not take this class, imported into a module of tests, for one of its own.
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
            In place of the attributes of the class.
        progress : callable, optional
            Called after each schedule with the report as it is then.

        Returns
        -------
        report : Report
            What was found; prints as text.

        Raises
        ------
        TypeError, ValueError
            If the test is not as it must be; the message names the method.
        """
        return explore(cls(), seconds=seconds, schedules=schedules, seed=seed, progress=progress)
