"""The stress harness: records what threads do to a store, and proves from that whether it was correct.

``python -m latchstore stress`` runs it, the pytest plugin runs it in a test, and `linearizable_store` in
`latchstore.stress.check` is what both a test and a program can call. README.md beside this file says what is
checked and what was found.

It is a program, which the store does not load; it may import all other rooms, but for other programs. Begin
with ``check.py``, which goes from a factory to a verdict; ``workloads`` has what threads do, ``recording.py``
what is noted of it, ``linearizability.py`` and the other checkers what is proved, ``controlled.py`` and
``scheduler.py`` how one thread at a time is run.
"""
