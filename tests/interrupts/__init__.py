"""Exceptions before any bytecode: what raises them, what they strike, and what must be true after it."""

from tests.interrupts.striker import Striker, ThreadStriker

__all__ = ["Striker", "ThreadStriker"]
