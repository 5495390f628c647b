"""One load of a key at a time, however many threads want it.

Thread safety: a key's load stands in a dict while it runs. Whoever puts it there (``setdefault`` is atomic)
runs it, all others wait for it, with no lock held. A load is finished once, by the thread that runs it, by
one assignment of `outcome`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from latchstore.errors import LoadTimeoutError, RecursiveLoadError
from latchstore.locking import Waiters, this_thread, thread_name


class Outcome(NamedTuple):
    """How a load has ended.

    Attributes
    ----------
    data : bytes or None
        What was loaded, encoded; None if there is nothing: a load of many keys did not have this one, or it
        failed.
    error : BaseException or None
        What it failed with.
    """

    data: bytes | None
    error: BaseException | None


class Load:
    """The load of one key.

    Attributes
    ----------
    key : str
    tags : frozenset of str
        What the loaded entry is to be invalidated by.
    overtaken : bool
        Whether the key was set or deleted since the load began, which counts more than its result.
    outcome : Outcome or None
        None while it runs.
    """

    __slots__ = ("_since", "_thread", "_waiters", "key", "outcome", "overtaken", "tags")

    def __init__(self, key: str, tags: Iterable[str] = ()) -> None:
        self.key = key
        self.tags = frozenset(tags)
        self.overtaken = False
        self.outcome: Outcome | None = None
        self._thread = this_thread.thread
        self._since = time.monotonic()
        self._waiters = Waiters()


class LoadTable:
    """The loads that run."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        # For which load a thread waits, so that no circle of waiting threads closes.
        self._waiting: dict[threading.Thread, Load] = {}

    def renew(self) -> None:
        """Forget what runs in the parent, in a forked child."""
        self._loads = {}
        self._waiting = {}

    def __bool__(self) -> bool:
        return bool(self._loads)

    def claim(self, load: Load) -> Load:
        """Return the load of the key that runs; the one that is given, if none did."""
        return self._loads.setdefault(load.key, load)

    def running(self, key: str) -> Load | None:
        """Return the load of the key that runs, or None."""
        return self._loads.get(key)

    def finish(self, load: Load, outcome: Outcome) -> None:
        """End a load and wake those who wait for it; may be done twice, the first outcome stands."""
        if load.outcome is None:
            load.outcome = outcome
        if self._loads.get(load.key) is load:
            del self._loads[load.key]
        load._waiters.ring_all()

    def overtake(self, key: str) -> None:
        """Note that a key was set or deleted; the caller keeps the load from storing meanwhile."""
        load = self._loads.get(key)
        if load is not None:
            load.overtaken = True

    def overtake_all(self, tag: str | None = None) -> None:
        """Note that all keys with a tag, or all keys, were deleted; as `overtake`."""
        for load in list(self._loads.values()):
            if tag is None or tag in load.tags:
                load.overtaken = True

    def wait(self, load: Load, timeout: float | None) -> Outcome:
        """Wait for another thread's load; return its outcome.

        Raises
        ------
        LoadTimeoutError
            If it takes longer than `timeout` seconds.
        RecursiveLoadError
            If that load is this thread's own, or waits for it.
        """
        me = this_thread.thread
        try:
            self._waiting[me] = load
            self._refuse_circle(me, load)
            seconds = -1.0 if timeout is None else timeout
            if not load._waiters.wait(lambda: load.outcome is not None, seconds):
                raise LoadTimeoutError(
                    f"key {load.key!r} is still being loaded after {timeout:g} s: by thread "
                    f"{thread_name(load._thread)!r}, for {time.monotonic() - load._since:.3f} s"
                )
        finally:
            self._waiting.pop(me, None)
        assert load.outcome is not None
        return load.outcome

    def _refuse_circle(self, me: threading.Thread, load: Load) -> None:
        """Follow who waits for whom. Of the threads of a circle the last to note that it waits sees it."""
        path = [load.key]
        waited_for: Load | None = load
        while waited_for is not None:
            if waited_for._thread is me:
                raise RecursiveLoadError(
                    f"key {load.key!r} is being loaded by this thread, or by one that waits for it: "
                    + " -> ".join(map(repr, path))
                )
            waited_for = self._waiting.get(waited_for._thread)
            if waited_for is not None:
                if waited_for.key in path:
                    return  # a circle of others, who find it themselves
                path.append(waited_for.key)
