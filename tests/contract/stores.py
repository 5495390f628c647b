"""The fixtures that every contract class has, and ways to look at a whole store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from latchstore import AbstractStore, DictMemoryStore, EventManager
from latchstore.engine.transactional_store import TransactionalStore

#: The mark of tests that take for granted that this process makes all commits, and has published each when
#: the call returns that makes it.
one_process = pytest.mark.one_process

#: Seconds after which a wait in a test has failed.
TIMEOUT = 30.0

#: Data, metadata, created, modified and revision of a key.
Facts = tuple[bytes, dict[str, Any], float, float, int | None]


class StoreContract:
    """What the contract classes share: the store to test, and another one beside it.

    Attributes
    ----------
    any_metadata : bool
        Whether the store takes metadata of all types that can be copied, and not only builtin ones.
    """

    any_metadata = True

    @pytest.fixture
    def store(self) -> Iterator[AbstractStore]:
        """An empty, open store. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Iterator[AbstractStore]:
        """A second store, of any kind."""
        with DictMemoryStore(EventManager()) as store:
            yield store

    def check(self, store: TransactionalStore) -> None:
        """Look whether nothing is left of blocks and snapshots that have ended.

        Tests call it when they have ended all. A subclass looks at what its store can tell.
        """


def stream(data: bytes) -> io.BytesIO:
    """Return a stream over `data`."""
    return io.BytesIO(data)


def fill(store: AbstractStore, **data: bytes) -> None:
    """Set keys to data, with the metadata that says which key it is."""
    for key, value in data.items():
        store.set(key, (stream(value), {"name": key}))


def contents(store: AbstractStore) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Return data and metadata of every key."""
    return {key: (store.to_bytes(key), store.get_metadata(key)) for key in store.query_keys()}


def facts(store: AbstractStore) -> dict[str, Facts]:
    """Return all that a store tells of every key, so that two looks differ if anything has changed."""
    found = {}
    for key in store.query_keys():
        value = store.get(key)
        found[key] = (value.data.read(), value.metadata, value.created, value.modified, value.revision)
    return found
