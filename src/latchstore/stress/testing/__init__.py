"""Tests of any class: threads use an object, and what they got must be what some order of the calls gives.

`Test` is what users subclass; docs/how-to/testing-a-class.md is the page for them. Begin with ``case.py``,
which has it, and ``definition.py``. ``program.py`` draws what the threads do, ``execution.py`` runs it once
and notes what came back, ``specification.py`` runs orders of the same calls on fresh objects in one thread,
``checking.py`` looks for one that explains what came back, ``exploration.py`` repeats that until the time is
over or it failed, ``shrinking.py`` makes a failure small, and ``wording.py`` has what is printed.
"""
