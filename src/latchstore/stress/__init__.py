"""The stress harness: records what threads do to a store, and proves from that whether it was correct.

``python -m latchstore stress`` runs it, the pytest plugin runs it in a test, and `linearizable_store` in
`latchstore.stress.check` is what both a test and a program can call. README.md beside this file says what is
checked and what was found.
"""
