"""A fork beside threads that begin: what notes the parent's threads must not hang the process.

CPython 3.11.0 to 3.11.11 does, if the collector begins amid ``sys._current_frames``
(https://github.com/python/cpython/issues/106883); see ``contract/frames.py``.
"""

from __future__ import annotations

import subprocess
import sys

from tests.fork.children import TIMEOUT, needs_fork

#: In each round the collector begins at another allocation. What it then calls lets a thread begin, which
#: takes the interpreter's list of threads.
PROGRAM = """
import faulthandler, gc, os, threading, warnings, weakref
from latchstore import DictMemoryStore
from latchstore.contract.frames import frames_of_threads

faulthandler.dump_traceback_later({timeout}, exit=True)
warnings.simplefilter("ignore", DeprecationWarning)
store = DictMemoryStore()
wanted, begun = threading.Semaphore(0), threading.Semaphore(0)


class Garbage:
    pass


def begin_threads():
    while True:
        wanted.acquire()
        threading.Thread(target=begun.release).start()


def let_one_begin(reference):
    collected.append(reference)
    if os.getpid() == parent:
        wanted.release()
        begun.acquire()


def wait(ready, over):
    ready.release()
    over.wait()


def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


threading.Thread(target=begin_threads, daemon=True).start()
parent, collected = os.getpid(), []
for call in fork, frames_of_threads:
    for allocations in range(24):
        ready, over = threading.Semaphore(0), threading.Event()
        waiting = [threading.Thread(target=wait, args=(ready, over), daemon=True) for _ in range(8)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            ready.acquire()
        gc.collect()
        garbage = Garbage()
        garbage.itself = garbage
        reference = weakref.ref(garbage, let_one_begin)
        del garbage
        gc.set_threshold(gc.get_count()[0] + allocations)
        call()
        gc.set_threshold(700)
        gc.collect()
        over.set()
        for thread in waiting:
            thread.join()
assert len(collected) == 48
print("done", flush=True)
os._exit(0)
"""


@needs_fork
def test_the_collector_may_let_a_thread_begin() -> None:
    program = [sys.executable, "-c", PROGRAM.format(timeout=TIMEOUT)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr
