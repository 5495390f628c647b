"""Jobs that have failed for good; they are kept until they are requeued or discarded.

Thread safety: as ``job.py``; requeueing and discarding commit on the condition that the job still has the
revision that was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from latchstore.contract.codec import V, decoded
from latchstore.contract.errors import RevisionMismatchError
from latchstore.contract.values import Value
from latchstore.queue import places
from latchstore.queue.settings import Settings


class DeadLetter(Generic[V]):
    """A job that has failed for good, as it was when it was read; returned by `WorkQueue.dead_letters`.

    Attributes
    ----------
    key : str
    attempts : int
        Number of claims.
    reason : str
        Reason of the last failure.
    failed : float
        Time of the failure, in seconds since the epoch.
    metadata : dict
        The metadata given to `WorkQueue.put`.
    priority : int

    Thread safety
    -------------
    Any thread may requeue or discard a dead letter; the first one wins.
    """

    def __init__(self, settings: Settings[V], key: str, value: Value) -> None:
        metadata = value.metadata
        place = places.parsed(metadata[places.PLACE])
        self._settings = settings
        self._data: bytes = value.content
        self._place: str = metadata[places.PLACE]
        self.key: str = key
        self.attempts: int = metadata.get(places.ATTEMPTS, 0)
        self.reason: str = metadata.get(places.REASON, "")
        self.failed: float = place.time / 1_000_000
        self.metadata: dict[str, Any] = places.own_items(metadata)
        self.priority: int = place.priority

    @property
    def payload(self) -> V:
        """The payload, decoded anew at each access. CodecError if it cannot be decoded."""
        return decoded(self._settings.codec, self.key, self._data, self._settings.name)

    def requeue(self) -> bool:
        """Put the job at the end of the queue again, with no attempts counted.

        Returns
        -------
        done : bool
            False if it is not a dead letter any more.
        """
        settings = self._settings
        store, key = settings.store, settings.key_of(self.key)

        def requeue(revision: int, items: dict[str, Any]) -> None:
            # A new number: no worker of an earlier attempt can mistake the job for its own.
            rank = places.rank_of(self.priority, self._settings.next_number())
            new = {**places.own_items(items), places.PLACE: places.ready(settings.name, rank)}
            store.set_metadata(key, new, if_revision=revision)

        return self._change(requeue)

    def discard(self) -> bool:
        """Remove the job from the store.

        Returns
        -------
        done : bool
            False if it is not a dead letter any more.
        """
        store, key = self._settings.store, self._settings.key_of(self.key)
        return self._change(lambda revision, items: store.delete(key, if_revision=revision))

    def _change(self, commit: Callable[[int, dict[str, Any]], None]) -> bool:
        """Commit a change, if the job is still the dead letter that was read."""
        settings = self._settings
        while True:
            try:
                value = settings.store.get(settings.key_of(self.key))
                items = value.metadata
                if items.get(places.PLACE) != self._place:
                    return False
                assert value.revision is not None
                commit(value.revision, items)
            except KeyError:
                return False
            except RevisionMismatchError:
                continue  # its metadata has changed since
            return True

    def __repr__(self) -> str:
        return f"<dead letter {self.key!r} of queue {self._settings.name!r}: {self.reason}>"
