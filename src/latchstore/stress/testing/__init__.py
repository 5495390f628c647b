"""Tests for any class: threads use an object, and a sequential order of the calls must explain the results.

`Test` is the base class for users; docs/how-to/testing-a-class.md is the guide. Begin with ``case.py``, which
has it, and ``definition.py``. ``program.py`` draws the calls of the threads, ``execution.py`` runs them once
and records the results, ``specification.py`` runs orders of the same calls on fresh objects in one thread,
``checking.py`` searches for an order that explains the results, ``exploration.py`` repeats that until the
time is over or a schedule fails, ``shrinking.py`` reduces a failure, and ``wording.py`` formats the report.
"""
