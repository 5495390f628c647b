"""The type of durations that callers pass. A module of its own, since `datetime` is slow to import.

Thread safety: it has no state.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

#: A number of seconds, or a ``datetime.timedelta``.
Seconds: TypeAlias = float | timedelta
