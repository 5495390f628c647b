"""The errors of latchstore, one tree; each class documents when it is raised.

Wrong arguments raise ``TypeError`` and ``ValueError``, a missing key raises ``KeyError``, as elsewhere in
Python. The classes here are for failures that only a store can have.
"""

from __future__ import annotations

from typing import ClassVar, Self


class StoreError(RuntimeError):
    """The base class of all errors that stores define.

    Attributes
    ----------
    had_no_effect : bool
        Of the class: whether the failed call is certain to have changed nothing, now and later, so that it is
        safe to repeat. False if the outcome is unknown, as when the reply to a commit was lost. Subclasses of
        your own inherit False.
    """

    had_no_effect: ClassVar[bool] = False


class _RefusedError(StoreError):
    """The base class of errors of calls that were refused before they changed anything."""

    had_no_effect: ClassVar[bool] = True


class AuthorizationError(_RefusedError):
    """The credentials given to ``connect`` were rejected (never raised by DictMemoryStore)."""


class StoreClosedError(_RefusedError):
    """A write was attempted on a store that ``close()`` has closed; ``connect()`` opens it again."""


class LockTimeoutError(_RefusedError, TimeoutError):
    """A lock was not released in time; the message names its holder, the purpose and the seconds."""


class OutcomeUnknownError(StoreError):
    """The connection broke after a commit was sent, and the server could not be asked for its outcome.

    The commit may have been applied or may still be applied, but at most once. Read the keys that it was to
    change, or repeat it if it is idempotent.
    """


class FlushTimeoutError(StoreError, TimeoutError):
    """Events were still pending when the timeout of ``flush`` or ``close`` expired.

    Attributes
    ----------
    pending : int
        The number of events that were not delivered.
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
    """A writer timed out because ``max_pending_events`` events were pending; nothing was changed.

    Attributes
    ----------
    pending : int
        The number of pending events.
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
    """A file to load is damaged, was not written by a store, or has an unknown format."""


class DispatcherThreadError(StoreError):
    """A listener called ``flush`` or ``close``, which would wait for that listener."""


class WaitTimeoutError(_RefusedError, TimeoutError):
    """The change that ``wait_for``, ``wait_for_key`` or a watch's ``get`` waits for did not come in time."""


class WatchClosedError(_RefusedError):
    """A watch was read after it, or its store, was closed."""


class CompactedError(_RefusedError):
    """The store's history does not contain the requested changes, or no longer does.

    Raised by ``watch(since=...)``, and by snapshots of stores where the history is needed to undo later
    commits.

    Attributes
    ----------
    since : int
        The requested revision; that of the snapshot, if a snapshot was read.
    oldest_revision : int
        The oldest revision whose changes are available; that of the next commit if there are none.
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
    """The base class of errors of transactions."""


class TransactionClosedError(_RefusedError, TransactionError):
    """A transaction was used before its block began or after it ended, or was entered a second time."""


class WrongThreadError(_RefusedError, TransactionError):
    """A transaction was used by another thread than the one that opened it."""


class TransactionConflictError(_RefusedError, TransactionError):
    """Keys that an optimistic transaction had read were changed by another commit before it committed.

    Attributes
    ----------
    keys : tuple of str
        The keys that were changed, created or deleted, out of those that the transaction had read.
    tries : int
        The number of tries of the transaction.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = (), tries: int = 1) -> None:
        super().__init__(message)
        self.keys = keys
        self.tries = tries

    def __reduce__(self) -> tuple[type[TransactionConflictError], tuple[object, ...]]:
        return type(self), (self.args[0], self.keys, self.tries)


class RevisionMismatchError(_RefusedError):
    """A write with ``if_revision`` found another revision; nothing was changed.

    Attributes
    ----------
    key : str
    expected : int
        The revision that was passed; 0 for a key that must not exist.
    actual : int
        The revision of the key; 0 if it does not exist.
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
    """The base class of errors about the value of one key."""

    def __init__(self, key: str, message: str, queue: str | None = None) -> None:
        where = f"key {key!r}" if queue is None else f"queue {queue!r}, job {key!r}"
        super().__init__(f"{where} {message}")
        self.key = key
        self.queue = queue
        self._message = message

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.key, self._message, self.queue)


class CodecError(_ValueOfKeyError, ValueError):
    """A value could not be encoded or decoded; ``__cause__`` is the codec's error.

    Attributes
    ----------
    key : str
        Of a payload, the key of the job in its queue.
    queue : str or None
        Name of the queue, if the value is the payload of a job.
    """


class KeptByReferenceError(_ValueOfKeyError, TypeError):
    """The value's bytes were requested, but its cache keeps objects by reference and has none.

    Attributes
    ----------
    key : str
    """


class EntryTooLargeError(_RefusedError, ValueError):
    """The weight of a value is more than the maximum of the whole cache; nothing was changed."""


class LoadTimeoutError(_RefusedError, TimeoutError):
    """Another thread was still loading a key when the timeout expired; it continues to load."""


class RecursiveLoadError(_RefusedError):
    """Waiting for the load of a key would deadlock, since that load waits for this thread."""


class QueueClosedError(_RefusedError):
    """A job was put into a closed work queue."""


class JobExistsError(_RefusedError):
    """A job was put under a key that exists in the queue; nothing was changed.

    Attributes
    ----------
    queue : str
    key : str
    state : str or None
        The state of the existing job: ``"ready"``, ``"delayed"``, ``"leased"`` or ``"dead"``; None if the
        entry is not a job.
    """

    def __init__(self, queue: str, key: str, state: str | None) -> None:
        is_there = (
            f"a job with that key exists and is {state}" if state else "the store has another entry there"
        )
        advice = "pass if_exists='keep' or if_exists='replace'" if state else "use another key"
        super().__init__(f"queue {queue!r}, job {key!r}: {is_there}; {advice}")
        self.queue = queue
        self.key = key
        self.state = state

    def __reduce__(self) -> tuple[type[JobExistsError], tuple[object, ...]]:
        return type(self), (self.queue, self.key, self.state)


class LeaseLostError(_RefusedError):
    """A worker tried to end a job that it no longer holds; nothing was changed.

    The lease had expired and another worker had claimed the job, or the job was ended, replaced or deleted.

    Attributes
    ----------
    queue : str
    key : str
    attempts : int
        The number of this attempt at the job.
    """

    def __init__(self, queue: str, key: str, attempts: int, why: str) -> None:
        super().__init__(f"queue {queue!r}, job {key!r}, attempt {attempts}: {why}")
        self.queue = queue
        self.key = key
        self.attempts = attempts
        self._why = why

    def __reduce__(self) -> tuple[type[LeaseLostError], tuple[object, ...]]:
        return type(self), (self.queue, self.key, self.attempts, self._why)
