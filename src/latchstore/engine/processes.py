"""What tells a process from all others, and whether it runs, as far as that can be seen from here.

Thread safety: functions of their arguments.
"""

from __future__ import annotations

import functools
import os


def this_process() -> str:
    """Return what tells this process from all others: its number, when it began, and where that counts."""
    return _described(os.getpid())


def is_running(process: str) -> bool:
    """Return whether a process is running that `this_process` has described; true if it cannot be seen."""
    number, beginning, place = process.split(" ", 2)
    if place != _place():
        return True
    if beginning != "0":
        return str(_beginning_of(int(number))) == beginning
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True


def name_of(process: str) -> str:
    """Return how messages name a process that `this_process` has described."""
    return f"process {process.partition(' ')[0]}"


@functools.lru_cache(maxsize=1)
def _described(process: int) -> str:
    return f"{process} {_beginning_of(process) or 0} {_place()}"


def _place() -> str:
    """Return what numbers of processes are unique in: a boot of a machine, and a namespace of it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.uname().nodename if hasattr(os, "uname") else ""


def _beginning_of(process: int) -> int | None:
    """Return when a process began, in ticks since the boot; None if it has ended or cannot be seen."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(fields[18])
