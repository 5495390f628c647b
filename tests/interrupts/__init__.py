"""Exceptions wherever CPython raises them: what raises them, what they strike, what must be true then.

README.md beside this file tells of the fault model, the judges and what they have counted.
"""

from tests.interrupts.striker import Striker, ThreadStriker

__all__ = ["Striker", "ThreadStriker"]
