"""Identify processes, and find out whether one still runs.

Thread safety: the functions have no state.
"""

from __future__ import annotations

import functools
import os


def this_process() -> str:
    """Return a text that identifies this process: its number, its start, and its machine and namespace."""
    return _described(os.getpid())


def is_running(process: str) -> bool:
    """Return whether a process that `this_process` has identified is running; True if that is unknown."""
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
        return True  # it belongs to another user
    return True


def name_of(process: str) -> str:
    """Return the name of an identified process for messages."""
    return f"process {process.partition(' ')[0]}"


@functools.lru_cache(maxsize=1)
def _described(process: int) -> str:
    return f"{process} {_beginning_of(process) or 0} {_place()}"


def _place() -> str:
    """Return the scope in which process numbers are unique: a boot of a machine, and a namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.uname().nodename if hasattr(os, "uname") else ""


def _beginning_of(process: int) -> int | None:
    """Return the start of a process, in ticks since the boot; None if it has ended or is not visible."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(fields[18])
