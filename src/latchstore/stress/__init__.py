"""The stress harness: records what threads do to a store, and checks that it was correct.

So far it has the history of a run and the checkers of single keys.
"""
