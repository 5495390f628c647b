"""Threads that disturb the others: exceptions out of nowhere, and children."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from latchstore import StoreModificationEvent
from latchstore.cache.inspection import check as check_cache
from latchstore.engine.inspection import check, dispatcher_of
from tests.interrupts.storms import spin
from tests.interrupts.striker import set_exception
from tests.soak.scene import Scene
from tests.soak.storms import Struck
from tests.soak.workers import Worker

#: Seconds after which a child is ended.
CHILD_TIMEOUT = 60


class Interrupter(Worker):
    """Raises `Struck` in workers, wherever they are, and in threads that call listeners."""

    may_be_struck = False

    def __init__(self, scene: Scene, workers: Sequence[Worker]) -> None:
        super().__init__(scene)
        self._workers = [worker for worker in workers if worker.may_be_struck]
        self._met = dict.fromkeys(self._workers, 0)
        self._dispatchers = [dispatcher_of(store) for store in scene.stores]
        #: How many exceptions were set, in workers and in threads that call listeners.
        self.set = 0
        self.set_in_dispatchers = 0

    def step(self) -> None:
        """Strike one."""
        storm = self.scene.storm
        if storm.dispatchers and self.random.random() < 0.2:
            dispatcher = self.random.choice(self._dispatchers)
            for pause in self._burst():
                self.set_in_dispatchers += strike(dispatcher.thread)
                spin(pause)
        elif storm.bursts:
            worker = self.random.choice(self._workers)
            if worker.ready and worker.begun > self._met[worker]:
                for pause in self._burst():
                    self.set += strike(worker.thread)
                    spin(pause)
                self._met[worker] = worker.begun
        time.sleep(self.random.random() * 0.004)

    def _burst(self) -> list[float]:
        return [
            10 ** self.random.uniform(-5.5, -3.5) for _ in range(self.random.choice(self.scene.storm.bursts))
        ]

    def calm(self) -> None:
        """Take back what was set and has not come, while this does not run."""
        for worker in self._workers:
            strike(worker.thread, None)
        for dispatcher in self._dispatchers:
            strike(dispatcher.thread, None)


def strike(thread: threading.Thread | None, kind: type[BaseException] | None = Struck) -> int:
    """Set an exception in a thread, or take it back; return in how many threads."""
    ident = None if thread is None else thread.ident
    return 0 if ident is None else set_exception(ctypes.c_ulong(ident), kind and ctypes.py_object(kind))


class Forker(Worker):
    """Forks children, which use the store and say what was wrong."""

    may_be_struck = False

    def step(self) -> None:
        """Have one child."""
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Newer versions of Python warn of forks beside threads, which this is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            self._be_child(write)
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        self.scene.expect(not status and not told, f"a child ended with {status}: {told}")
        time.sleep(self.random.random() * 0.2)

    def _be_child(self, write: int) -> None:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_TIMEOUT)
            self.scene.violations.clear()
            self._use_store()
            os.write(write, "\n".join(self.scene.violations).encode())
            code = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def _use_store(self) -> None:
        store = self.store
        expect = self.scene.expect
        check(store)
        expect(store.info()["pending_events"] == 0, "events of the parent's are pending")
        with store.snapshot() as view:
            self.scene.expect_one_instant(view)
        heard: list[tuple[str, int]] = []

        def listen(event: Any) -> None:
            heard.append((event.key, event.revision))

        store.event_manager.connect(StoreModificationEvent, listen)
        with store.watch() as changes:
            with store.transaction("child") as tx:
                store.from_bytes("child", b"")
            read = changes.get(CHILD_TIMEOUT)
        store.flush(CHILD_TIMEOUT)
        revision = tx.revision
        expect(heard == [("child", revision)], f"heard {heard} and not revision {revision}")
        expect(read.revision == revision, f"read {read}")
        store.close(CHILD_TIMEOUT)
        cache = self.scene.cache
        expect(cache.get_or_load("key/0", lambda key: (key, 0))[0] == "key/0", "another value is cached")
        check_cache(cache)
