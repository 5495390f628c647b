"""How long something takes, as callers give it. A module of its own, as `datetime` takes long to load.

Thread safety: a type.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

#: A number of seconds, or a ``datetime.timedelta``.
Seconds: TypeAlias = float | timedelta
