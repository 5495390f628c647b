"""A load of one key: the call that runs it, the waiters, and the outcome.

Thread safety: rules 2 and 3 of ``loading.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from latchstore.delivery.waiting import Waiters, clock, this_thread, thread_name
from latchstore.engine.tasks import caller, task_name

#: Stands for "no value", and for "no content" of an entry.
MISSING: Any = object()


class Outcome(NamedTuple):
    """The result of a load.

    Attributes
    ----------
    content : object
        The loaded content, as the entry holds it; `MISSING` if there is none: a load of many keys did not
        return this key, or the load failed.
    error : BaseException or None
        The failure, without frames and context; each waiter raises a copy of its own.
    absent : bool
        Whether a load of many keys returned nothing for this key.
    """

    content: Any
    error: BaseException | None
    absent: bool = False


#: The load whose loader runs in this context; tasks that a coroutine function starts inherit it, and so do
#: threads that work for a task.
loading: ContextVar[Load | None] = ContextVar("latchstore_loading", default=None)


class Run:
    """One call that loads keys.

    Attributes
    ----------
    over : bool
        Whether the call has ended, in whatever way; its loads have ended with it.
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
        The tags of the loaded entry.
    overtaken : bool
        Whether the key was set or deleted since the load began; that takes precedence over its result.
    kept_out : bool
        Whether the result must not be stored: the load is overtaken, or an open transaction will overtake it.
    outdated : bool
        Only for a load in an optimistic transaction: whether another thread was about to set or delete the
        key since the load began.
    token : int or None
        The token of its lease, if it needs one.
    outcome : Outcome or None
        None while the load runs.
    caller : object
        The task that began the load, or the thread if no task did.
    awaits : list of Load
        The loads that its loader waits for, if a task began it; each change is one operation.
    orphan : callable or None
        Returns the task that runs the loader, while there is one, if the task that began the load was
        cancelled; None otherwise.
    waiters : Waiters
        Notified when the load is over.
    warned : bool
        Whether a waiter has logged that the load takes long.
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
        """Assign the load to a call in this thread, which may not be the one that made it."""
        self.run, self._thread = run, this_thread.thread

    def is_over(self) -> bool:
        """Return whether the load has ended."""
        return self.outcome is not None or self.run.over

    def describe(self) -> str:
        """Return a text with the loading thread or task and the duration so far."""
        who = f"thread {thread_name(self._thread)!r}"
        if self.caller is not self._thread:
            who = f"{task_name(self.caller)} of {who}"
        return f"{who}, for {clock() - self._since:.3f} s"
