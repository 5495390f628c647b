"""The errors of latchstore: one tree, each class says when it is raised.

Wrong arguments are ``TypeError`` and ``ValueError``, a missing key is ``KeyError``, as everywhere in
Python; what stands here is what only a store can get wrong.
"""

from __future__ import annotations


class StoreError(RuntimeError):
    """The base of every error that a store raises of its own accord."""


class AuthorizationError(StoreError):
    """The credentials given to ``connect`` do not open this store (never raised by DictMemoryStore)."""


class StoreClosedError(StoreError):
    """A change was asked of a store that ``close()`` has shut; ``connect()`` opens it again."""


class LockTimeoutError(StoreError, TimeoutError):
    """A lock did not come free in time; the message names who holds it, why and for how long."""


class FlushTimeoutError(StoreError, TimeoutError):
    """Events were still waiting for their listeners when the time given to ``flush`` or ``close`` ended."""


class DispatcherThreadError(StoreError):
    """``flush`` or ``close`` was called by a listener, which would wait for itself."""


class TransactionError(StoreError):
    """The base of what can go wrong with a transaction."""


class TransactionClosedError(TransactionError):
    """A transaction was used before its block began, after it ended, or entered a second time."""


class WrongThreadError(TransactionError):
    """A transaction was used by another thread than the one that opened it."""
