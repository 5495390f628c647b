"""Scripts with a store, run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.dispatcher.calls import TIMEOUT

SCRIPT = """
import sys
from latchstore import DictMemoryStore, EventManager, StoreSetEvent
from latchstore.delivery import at_exit

path = sys.argv[1]

def listener(event):
    with open(path, "a", encoding="ascii") as file:
        file.write(event.key + "\\n")

def new_store():
    manager = EventManager()
    manager.connect(StoreSetEvent, listener)
    return DictMemoryStore(manager)

"""


def run_script(script: str, path: Path) -> tuple[int, str, str, list[str]]:
    """Run a script to its end; return its exit code, output, error output and what was heard."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", SCRIPT + textwrap.dedent(script), path],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    heard = path.read_text(encoding="ascii").split() if path.exists() else []
    return done.returncode, done.stdout, done.stderr, heard
