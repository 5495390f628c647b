"""A thread that has requests for memory fail, in all threads of the process."""

from __future__ import annotations

import contextlib
import mmap
import time
from pathlib import Path

from tests.soak.scene import Scene
from tests.soak.workers import Worker

#: Of how many requests after it was told to the first fails at most.
FIRST = 5_000

#: How large the pieces are that are taken until there are none, in bytes: the small ones are what Python's
#: own allocator has left.
PIECES = (1 << 20, 1 << 16, 1 << 12, 400, 200, 100, 50)


class Starver(Worker):
    """Has a few requests in a row fail (``_testcapi.set_nomemory``), or takes all that the process may have.

    Memory that is limited by the system (``RLIMIT_AS``) fails where the allocator of Python asks for more, so
    rarely; small requests are mostly met by what is there.

    Attributes
    ----------
    may_begin : bool
        Whether the main thread goes on if it gets no memory; set by it.
    """

    may_be_struck = False

    def __init__(self, scene: Scene, number: int = 0) -> None:
        super().__init__(scene, number)
        self._taken: list[bytes] = []
        self._limited = False
        self.may_begin = False

    def step(self) -> None:
        """Let memory fail for a moment, as soon as the main thread can bear it."""
        while not self.may_begin and not self.over:
            time.sleep(0.001)
        if self.scene.storm.requests:
            self._fail_requests()
        else:
            self._take_all()

    def _fail_requests(self) -> None:
        import _testcapi  # type: ignore[import-not-found]

        first = self.random.randrange(1, FIRST)
        _testcapi.set_nomemory(first, first + 1 + self.random.randrange(self.scene.storm.requests))
        time.sleep(self.random.random() * 0.05)

    def _take_all(self) -> None:
        self._limit(self.scene.storm.megabytes)
        try:
            for size in PIECES:
                with contextlib.suppress(MemoryError):
                    while True:
                        self._taken.append(bytes(size))
            time.sleep(self.random.random() * 0.05)
        finally:
            self._taken.clear()
        time.sleep(self.random.random() * 0.05)

    def _limit(self, megabytes: int) -> None:
        import resource

        if self._limited == bool(megabytes):
            return
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * mmap.PAGESIZE + (megabytes << 20) if megabytes else most
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        self._limited = bool(megabytes)

    def calm(self) -> None:
        """Let all requests be met again."""
        self.may_begin = False
        self._taken.clear()
        self._limit(0)
        if self.scene.storm.requests:
            import _testcapi

            _testcapi.remove_mem_hooks()
