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
from latchstore.engine.inspection import check
from tests.soak.scene import Scene
from tests.soak.workers import Struck, Worker

#: Seconds after which a child is ended.
CHILD_TIMEOUT = 60


class Interrupter(Worker):
    """Raises `Struck` in workers, wherever they are (``PyThreadState_SetAsyncExc``)."""

    may_be_struck = False

    def __init__(self, scene: Scene, workers: Sequence[Worker]) -> None:
        super().__init__(scene)
        self._workers = [worker for worker in workers if worker.may_be_struck]

    def step(self) -> None:
        """Strike one."""
        worker = self.random.choice(self._workers)
        if worker.strikes == worker.struck and worker.ready:  # in this order
            worker.strikes += 1
            assert worker.thread is not None
            assert worker.thread.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(worker.thread.ident), ctypes.py_object(Struck)
            )
        time.sleep(self.random.random() * 0.004)

    def note_dropped(self, thread: threading.Thread) -> None:
        """Count a strike that has met a finalizer, where Python drops what is raised."""
        for worker in self._workers:
            if worker.thread is thread:
                worker.struck += 1


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
