"""The contract of a store: its abstract class and every type that the signatures of its methods name.

This room holds values, events, errors, argument checks, codecs and the mapping view. It imports nothing
else of the package. Begin with ``store.py``, which has the methods, and go on with ``values.py``.
"""
