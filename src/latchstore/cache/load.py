"""A load of one key: who runs it, who waits for it, and how it has ended.

Thread safety: rules 2 and 3 of ``loading.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from latchstore.delivery.waiting import Waiters, clock, this_thread, thread_name
from latchstore.engine.tasks import caller, task_name

#: What stands for no value, and for no content of an entry.
MISSING: Any = object()


class Outcome(NamedTuple):
    """How a load has ended.

    Attributes
    ----------
    content : object
        What was loaded, as the entry has it; `MISSING` if there is nothing: a load of many keys did not have
        this one, or it failed.
    error : BaseException or None
        What it failed with, without frames and context; each waiter raises a copy of its own.
    absent : bool
        Whether the load of many keys has found that there is none of this one.
    """

    content: Any
    error: BaseException | None
    absent: bool = False


#: The load whose loader runs in this context: that of tasks which a coroutine function has started included,
#: and of threads that work for one.
loading: ContextVar[Load | None] = ContextVar("latchstore_loading", default=None)


class Run:
    """One call that loads keys.

    Attributes
    ----------
    over : bool
        Whether the call has ended, however that came: with it all of its loads have.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over: bool = False


class Load:
    """The load of one key.

    Attributes
    ----------
    key : str
    run : Run
    tags : frozenset of str
        What the loaded entry is to be invalidated by.
    overtaken : bool
        Whether the key was set or deleted since the load began, which counts more than its result.
    kept_out : bool
        Whether its result must not be stored: it is overtaken, or a transaction that is still open will.
    outdated : bool
        Of a load in an optimistic transaction: whether another thread was about to set or delete the key
        since it began.
    token : int or None
        Of its lease, if it needs one.
    outcome : Outcome or None
        None while it runs.
    caller : object
        The task that has begun it, or the thread if it was none.
    awaits : list of Load
        What its loader waits for, if a task has begun it; of each change one operation.
    orphan : callable or None
        Returns the task that runs its loader, as long as there is one, if that which has begun it was
        cancelled; None otherwise.
    waiters : Waiters
        Rung when it is over.
    warned : bool
        Whether a waiter has logged that it takes long.
    """

    __slots__ = (
        "__weakref__",
        "_since",
        "_thread",
        "awaits",
        "caller",
        "kept_out",
        "key",
        "orphan",
        "outcome",
        "outdated",
        "overtaken",
        "run",
        "tags",
        "token",
        "waiters",
        "warned",
    )

    def __init__(self, key: str, run: Run, tags: Iterable[str] = ()) -> None:
        self.key: str = key
        self.run: Run = run
        self.tags: frozenset[str] = frozenset(tags)
        self.overtaken: bool = False
        self.kept_out: bool = False
        self.outdated: bool = False
        self.token: int | None = None
        self.outcome: Outcome | None = None
        self.caller: object = caller()
        self.awaits: list[Load] = []
        self.orphan: Callable[[], Any] | None = None
        self._thread = this_thread.thread
        self._since = clock()
        self.waiters: Waiters = Waiters()
        self.warned: bool = False

    def belong_to(self, run: Run) -> None:
        """Have it be loaded by a call in this thread, which is not always the one that has made it."""
        self.run, self._thread = run, this_thread.thread

    def is_over(self) -> bool:
        """Tell whether nothing more will come of it."""
        return self.outcome is not None or self.run.over

    def describe(self) -> str:
        """Name who loads it, and for how long."""
        who = f"thread {thread_name(self._thread)!r}"
        if self.caller is not self._thread:
            who = f"{task_name(self.caller)} of {who}"
        return f"{who}, for {clock() - self._since:.3f} s"
