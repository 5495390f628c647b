"""The errors of latchstore: one tree, each class documents when it is raised.

Wrong arguments are ``TypeError`` and ``ValueError``, a missing key is ``KeyError``, as everywhere in
Python; what stands here is what only a store can get wrong.
"""

from __future__ import annotations

from typing import ClassVar, Self


class StoreError(RuntimeError):
    """The base of every error that a store raises of its own accord.

    Attributes
    ----------
    had_no_effect : bool
        Of the class: whether the call that raised it has changed nothing and never will, so that it may be
        made again. False: nobody knows, as when a commit was sent and its answer was lost. A class of your
        own is False unless it says otherwise.
    """

    had_no_effect: ClassVar[bool] = False


class _RefusedError(StoreError):
    """The call was refused before it changed anything."""

    had_no_effect: ClassVar[bool] = True


class AuthorizationError(_RefusedError):
    """The credentials given to ``connect`` do not open this store (never raised by DictMemoryStore)."""


class StoreClosedError(_RefusedError):
    """A change was attempted on a store that ``close()`` has shut; ``connect()`` opens it again."""


class LockTimeoutError(_RefusedError, TimeoutError):
    """A lock did not come free in time; the message names who holds it, why and for how long."""


class OutcomeUnknownError(StoreError):
    """The connection to a server broke after a commit was sent, and the server could not be asked about it.

    The commit may have been made, or may yet be made; it is never made twice. Read what it was to change, or
    do something that may be done twice.
    """


class FlushTimeoutError(StoreError, TimeoutError):
    """Events were still waiting for their listeners when the time given to ``flush`` or ``close`` ended.

    Attributes
    ----------
    pending : int
        How many events had not been heard.
    listener : str or None
        The name of the listener that was running, if one was.
    """

    def __init__(self, message: str, pending: int = 0, listener: str | None = None) -> None:
        super().__init__(message)
        self.pending = pending
        self.listener = listener

    def __reduce__(self) -> tuple[type[FlushTimeoutError], tuple[object, ...]]:
        return type(self), (self.args[0], self.pending, self.listener)


class BackpressureError(_RefusedError, TimeoutError):
    """A writer was not let in, as ``max_pending_events`` were waiting for a listener; nothing was changed.

    Attributes
    ----------
    pending : int
        How many events were waiting.
    listener : str or None
        The name of the listener that was running, if one was.
    """

    def __init__(self, message: str, pending: int = 0, listener: str | None = None) -> None:
        super().__init__(message)
        self.pending = pending
        self.listener = listener

    def __reduce__(self) -> tuple[type[BackpressureError], tuple[object, ...]]:
        return type(self), (self.args[0], self.pending, self.listener)


class StoreFormatError(_RefusedError, ValueError):
    """A file that is to be loaded is damaged, is no store's, or has a format that is not known here."""


class DispatcherThreadError(StoreError):
    """``flush`` or ``close`` was called by a listener, which would wait for itself."""


class WaitTimeoutError(_RefusedError, TimeoutError):
    """What ``wait_for``, ``wait_for_key`` or a watch's ``get`` waited for has not happened in time."""


class WatchClosedError(_RefusedError):
    """A change was read from a watch after it, or its store, was closed."""


class CompactedError(_RefusedError):
    """Changes were asked for that the store's history does not have, or has no more.

    By ``watch(since=...)``; or by reading a snapshot, where the history is what undoes later changes.

    Attributes
    ----------
    since : int
        The revision that was asked for: that of the snapshot, if it was one.
    oldest_revision : int
        The oldest revision whose changes can still be had; that of the next commit if there are none.
    """

    def __init__(self, since: int, oldest_revision: int, asked: str | None = None, off: bool = False) -> None:
        name = f"since={since}" if asked is None else asked
        if off:
            had, advice = "the store keeps no history (history=0)", "give the store a history=, in commits"
        else:
            had, advice = f"the history begins with revision {oldest_revision}", "give it a larger history="
        super().__init__(
            f"{name}: {had}; read the store in a new snapshot and watch from the snapshot's revision on, "
            f"or {advice}"
        )
        self.since = since
        self.oldest_revision = oldest_revision
        self._asked = asked
        self._off = off

    def __reduce__(self) -> tuple[type[CompactedError], tuple[object, ...]]:
        return type(self), (self.since, self.oldest_revision, self._asked, self._off)


class TransactionError(StoreError):
    """The base of what can go wrong with a transaction."""


class TransactionClosedError(_RefusedError, TransactionError):
    """A transaction was used before its block began, after it ended, or entered a second time."""


class WrongThreadError(_RefusedError, TransactionError):
    """A transaction was used by another thread than the one that opened it."""


class TransactionConflictError(_RefusedError, TransactionError):
    """What an optimistic transaction has read was changed by another before it could commit.

    Attributes
    ----------
    keys : tuple of str
        The keys that were changed, or came or went where the transaction had looked.
    tries : int
        How many times the transaction was tried.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = (), tries: int = 1) -> None:
        super().__init__(message)
        self.keys = keys
        self.tries = tries

    def __reduce__(self) -> tuple[type[TransactionConflictError], tuple[object, ...]]:
        return type(self), (self.args[0], self.keys, self.tries)


class RevisionMismatchError(_RefusedError):
    """A write with ``if_revision`` met another revision; nothing was changed.

    Attributes
    ----------
    key : str
    expected : int
        The revision that was asked for; 0 for a key that must not exist.
    actual : int
        The revision of the key; 0 if there is none.
    """

    def __init__(self, key: str, expected: int, actual: int) -> None:
        expects = f"revision {expected}" if expected else "no such key"
        has = f"revision {actual}" if actual else "no such key"
        super().__init__(f"key {key!r}: if_revision expects {expects}, the store has {has}")
        self.key = key
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[type[RevisionMismatchError], tuple[object, ...]]:
        return type(self), (self.key, self.expected, self.actual)


class SnapshotClosedError(_RefusedError):
    """A snapshot was used after it was closed."""


class _ValueOfKeyError(_RefusedError):
    """Something is wrong with the value of a key."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"key {key!r} {message}")
        self.key = key
        self._message = message

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.key, self._message)


class CodecError(_ValueOfKeyError, ValueError):
    """A value could not be made bytes, or bytes could not be made a value again; the cause has the reason.

    Attributes
    ----------
    key : str
    """


class KeptByReferenceError(_ValueOfKeyError, TypeError):
    """There are no bytes of an object that a cache keeps by reference.

    Attributes
    ----------
    key : str
    """


class EntryTooLargeError(_RefusedError, ValueError):
    """A value weighs more than the whole cache may; nothing was changed."""


class LoadTimeoutError(_RefusedError, TimeoutError):
    """Another thread was still loading a key when the time to wait for it was over; it goes on loading."""


class RecursiveLoadError(_RefusedError):
    """Waiting for the load of a key would never end, as that load waits for this thread."""


class QueueClosedError(_RefusedError):
    """A job was put into a work queue that was closed."""


class JobExistsError(_RefusedError):
    """A job was put with a key that a job of the queue has; nothing was changed.

    Attributes
    ----------
    queue : str
    key : str
    state : str or None
        That of the job which is there: ``"ready"``, ``"delayed"``, ``"leased"`` or ``"dead"``; None if what
        is there is no job.
    """

    def __init__(self, queue: str, key: str, state: str | None) -> None:
        is_there = f"a job of that key is {state}" if state else "the store has an entry there that is no job"
        advice = (
            "if_exists='keep' leaves it, 'replace' puts the new one in its place"
            if state
            else "use another key"
        )
        super().__init__(f"queue {queue!r}, job {key!r}: {is_there}; {advice}")
        self.queue = queue
        self.key = key
        self.state = state

    def __reduce__(self) -> tuple[type[JobExistsError], tuple[object, ...]]:
        return type(self), (self.queue, self.key, self.state)


class LeaseLostError(_RefusedError):
    """A worker was to end a job that is not its own any more; nothing was changed.

    Its lease had run out and the job was given to another worker, or the job was ended, replaced or deleted.

    Attributes
    ----------
    queue : str
    key : str
    attempts : int
        Which attempt at the job this one was.
    """

    def __init__(self, queue: str, key: str, attempts: int, why: str) -> None:
        super().__init__(f"queue {queue!r}, job {key!r}, attempt {attempts}: {why}")
        self.queue = queue
        self.key = key
        self.attempts = attempts
        self._why = why

    def __reduce__(self) -> tuple[type[LeaseLostError], tuple[object, ...]]:
        return type(self), (self.queue, self.key, self.attempts, self._why)
