"""The code of each process of a run: its threads, and one that ends the process with its parent.

Thread safety: the main thread calls `run_member`, once in a process.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection

from latchstore.contract.store import AbstractStore
from latchstore.stress.faults import FAULTS, Fault
from latchstore.stress.native import Crew, WorkerError, switching_after
from latchstore.stress.processes.records import DONE, FINISH, FOUND, GO, MARK, READY, Order, Sender
from latchstore.stress.processes.shared import attached
from latchstore.stress.tracebacks import raised
from latchstore.stress.workloads import WORKLOADS, Workload

#: The exit code of a process whose parent has ended.
ORPHAN = 70

#: Seconds after which a process ends in any case; the parent abandons it much sooner.
_LONGEST = 24 * 3600.0


def run_member(order: Order, output: Connection, words: Connection) -> None:
    """Run one process of a run.

    Parameters
    ----------
    order : Order
    output, words : Connection
        For lines to the parent, and for words from the parent.
    """
    sender = Sender(output.fileno())
    with open(order.stacks, "w", encoding="utf-8") as stacks:
        faulthandler.enable(stacks)
        faulthandler.register(signal.SIGUSR1, stacks)
        heard = _words_of(words)
        try:
            _take_part(order, sender, heard)
        except BaseException as error:
            problem = raised("crash", "outside of all operations", error)
            sender.notify(DONE, [problem.kind, problem.text])
            raise SystemExit(1) from None


def _words_of(words: Connection) -> queue.SimpleQueue[bytes]:
    """Return the queue of the parent's words; the process ends with its parent."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                heard.put(words.recv_bytes())
            except (EOFError, OSError):
                os._exit(ORPHAN)

    threading.Thread(target=listen, name="words of the parent", daemon=True).start()
    return heard


def _take_part(order: Order, sender: Sender, heard: queue.SimpleQueue[bytes]) -> None:
    store = attached(order.stores, order.where, order.options)
    workloads = [WORKLOADS[name]() for name in order.workloads]
    for workload in workloads:
        workload.attach(store, order.handed[workload.name])
    faults = [
        FAULTS[name](order.seed + order.first, lambda name: sender.notify(MARK, [time.monotonic_ns(), name]))
        for name in order.faults
    ]
    for fault in faults:
        fault.prepare(store)
    sender.notify(READY)
    assert heard.get() == GO
    problem = _work(order, store, workloads, faults, sender)
    sender.notify(DONE, problem)
    assert heard.get() == FINISH
    for fault in faults:
        fault.finish(store)
    found = {workload.name: workload.detach(store) for workload in workloads}
    store.close()
    sender.notify(FOUND, found)


def _work(
    order: Order, store: AbstractStore, workloads: list[Workload], faults: list[Fault], sender: Sender
) -> list[str] | None:
    """Run the threads; return the kind and the text of an error that no store may raise."""
    crew = Crew(
        store,
        workloads,
        faults,
        order.lengths,
        order.seed,
        first=order.first,
        stride=order.stride,
        log=sender,
    )
    try:
        with switching_after(order.switch_interval):
            crew.work(_LONGEST, order.seconds)
    except WorkerError as error:
        problem = raised("crash", f"a thread of process {os.getpid()}", error.__cause__ or error)
        return [problem.kind, problem.text]
    return None
