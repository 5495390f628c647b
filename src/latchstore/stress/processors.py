"""Keeps the threads of a run on one processor.

Only one of them runs at a time. If the next one is on another processor, passing the turn wakes it up there
twice, for the turn and for the GIL, which takes several times as long.

Thread safety: each function affects the calling thread, and those that it starts later.
"""

from __future__ import annotations

import os
from pathlib import Path

#: The place of the processor in the fields after the name of a thread, see proc_pid_stat(5).
_PROCESSOR = 36


def stay_on_processor() -> None:
    """Keep the calling thread, and threads that it starts, on its present processor.

    The system chose that processor when it started the thread, probably an idle one. Without effect where the
    system does not tell.
    """
    try:
        fields = Path("/proc/thread-self/stat").read_text(encoding="utf-8", errors="replace")
        number = int(fields.rpartition(")")[2].split()[_PROCESSOR])
        os.sched_setaffinity(0, {number})
    except (OSError, AttributeError):
        return  # another system than Linux, or not allowed
