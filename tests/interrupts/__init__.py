"""Exceptions wherever CPython raises them: what raises them, what they strike, and what must be true after it.

README.md beside this file tells of the fault model, the judges and what they have counted.
"""

from tests.interrupts.striker import Striker, ThreadStriker

__all__ = ["Striker", "ThreadStriker"]
