"""What test_prefork.py has gunicorn serve: one store, made before the workers are forked, used in each.

It is gunicorn's configuration, too (``-c python:tests.prefork_application``).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from latchstore import DictMemoryStore, EventManager, StoreModificationEvent
from latchstore.engine.inspection import check

preload_app = True
worker_class = "gthread"
workers = 3
threads = 4
timeout = 30
graceful_timeout = 5
control_socket_disable = True

MASTER = os.getpid()
TIMEOUT = 20.0

store = DictMemoryStore(EventManager(), indexes=["pid"], history=10, max_pending_events=100)
heard: list[tuple[str, int]] = []
over = threading.Event()


def listen(event: Any) -> None:
    heard.append((event.key, event.metadata["pid"]))


def write_on() -> None:
    """Keep the locks and the listeners of the master in use, so that workers are forked beside that."""
    number = 0
    while not over.wait(0.0005):
        number += 1
        store.multiset(["left", "right"], [(b"%d" % number, {"pid": MASTER})] * 2)


store.event_manager.connect(StoreModificationEvent, listen)
writer = threading.Thread(target=write_on, daemon=True)
writer.start()


def serve(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Write in one transaction, wait until it has been heard, and tell what is to be seen."""
    key = environ["PATH_INFO"]
    with store.transaction(key) as tx:
        store.set(key, (b"", {"pid": os.getpid()}))
        visits = store.get_metadata("visits")["visits"] + 1 if store.exists("visits") else 1
        store.set("visits", (b"", {"visits": visits, "pid": os.getpid()}))
    store.flush(TIMEOUT, tx.revision)
    answer = {
        "pid": os.getpid(),
        "revision": tx.revision,
        "heard": (key, os.getpid()) in heard,
        "visits": visits,
        "sides": [store.to_bytes(side).decode() for side in ("left", "right")],
        "of_others": [key for key in store.query_keys(pid=MASTER) if key not in ("left", "right")],
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def on_exit(server: object) -> None:
    """Tell what the master has come to."""
    over.set()
    writer.join(TIMEOUT)
    store.flush(TIMEOUT)
    check(store)
    told = {
        "keys": sorted(store.glob("*")),
        "commits": store.info()["revision"],
        "heard": len(heard),
        "pids": sorted({pid for _, pid in heard}),
        "master": MASTER,
        "errors": store.stats()["listener_errors"],
    }
    print(json.dumps(told), flush=True)
