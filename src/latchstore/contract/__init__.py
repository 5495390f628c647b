"""The contract: what a store promises, and everything that the signatures of its methods name.

Values, events, errors, checks of arguments, codecs and the mapping view. It imports nothing else of the
package. Begin with ``store.py``, which has the methods, and go on with ``values.py``.
"""
