"""A store with transactions, snapshots and watches, over any engine.

Thread safety: the calls of a thread inside a transaction go to that transaction, all others to the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from latchstore.contract.arguments import (
    check_function,
    checked_count,
    checked_key,
    checked_timeout,
    describe,
    document_as,
    exact_string,
)
from latchstore.contract.errors import StoreClosedError
from latchstore.contract.glob_pattern import checked_pattern, matching_keys
from latchstore.contract.matching import checked_terms
from latchstore.contract.requests import Request, chosen
from latchstore.contract.values import Entry, Value, entry_from_metadata
from latchstore.delivery.change_buffer import ChangeBuffer, Interest, Published
from latchstore.delivery.commit_signal import CommitSignal
from latchstore.delivery.event_manager import listener_name
from latchstore.delivery.watch import Watch, wait_until
from latchstore.engine.attempts import Attempts
from latchstore.engine.delivered_store import DeliveredStore
from latchstore.engine.edits import Edit, by_key
from latchstore.engine.entry_reader import EntryReader, all_there
from latchstore.engine.entry_store import EntryStore
from latchstore.engine.selection import found
from latchstore.engine.snapshot import Snapshot
from latchstore.engine.tasks import MODULES
from latchstore.engine.transaction import Transaction

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class TransactionalStore(DeliveredStore):
    """The methods of a store with transactions, over any engine."""

    __slots__ = ()

    # -- reading ----------------------------------------------------------------------------------

    def _entry(self, key: str) -> Entry:
        key = checked_key(key)
        transaction = self._engine.routes.current()
        if transaction is not None:
            return transaction._entry(key)
        entry = self._engine.entry(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def _entries_of(self, keys: list[str]) -> list[Entry]:
        transaction = self._engine.routes.current()
        if transaction is not None:
            return transaction._entries_of(keys)
        return all_there(self._engine.entries_of(keys), keys)

    def _items(self) -> Iterable[tuple[str, Entry]]:
        return self._candidates({})

    def _candidates(self, terms: Mapping[str, Any]) -> Iterable[tuple[str, Entry]]:
        transaction = self._engine.routes.current()
        return self._engine.candidates(terms) if transaction is None else transaction._candidates(terms)

    def _found(self, request: Request) -> Iterable[tuple[str, Entry]]:
        transaction = self._engine.routes.current()
        if transaction is not None:
            return transaction._found(request)
        if request.is_plain:
            return chosen(self._candidates(request.terms), request)
        return found(self._engine, request, {})

    def _found_keys(self, request: Request) -> Iterator[str]:
        transaction = self._engine.routes.current()
        if transaction is not None:
            return transaction._found_keys(request)
        engine = self._engine
        if not request.is_all_keys:
            return super()._found_keys(request)
        if request.pattern is None:
            return iter(engine.keys())
        selection = engine.select(request, {}) if request.prefix else None
        if selection is not None and selection.is_enough:
            return iter([key for key, _ in selection.entries])
        return iter(matching_keys(request.pattern, engine.keys()))

    def __len__(self) -> int:
        transaction = self._engine.routes.current()
        return self._engine.count() if transaction is None else len(transaction)

    # -- writing ----------------------------------------------------------------------------------

    def _write_one(self, key: str, edit: Edit, purpose: str) -> None:
        engine = self._engine
        if engine.routes and (transaction := engine.routes.current()) is not None:
            # hot path: `BatchStore._write_one`, inlined; the thread has been checked.
            batch = transaction._batch
            if (
                batch is None
                or transaction._task is not None
                or "asyncio" in MODULES
                or "trio" in MODULES
                or "greenlet" in MODULES
            ):
                batch = transaction._open_batch()
            batch.put(key, edit)
            return
        dispatcher = self._dispatcher
        if self._closed or dispatcher.throttled:
            self._admit_writer(purpose)
        if engine.commit(((key, edit),), purpose):
            dispatcher.start_if_needed()

    def _write(self, edits: Sequence[tuple[str, Edit]], purpose: str) -> None:
        transaction = self._engine.routes.current()
        if transaction is not None:
            transaction._write(edits, purpose)
            return
        self._admit_writer(purpose)
        if self._engine.commit(by_key(edits), purpose):
            self._dispatcher.start_if_needed()

    # -- transactions -----------------------------------------------------------------------------

    def transaction(
        self, notes: str = "", *, timeout: Seconds | None = None, optimistic: bool = False
    ) -> Transaction:
        """Return a context manager whose block is a transaction: all its changes are one commit.

        An exclusive block, the default, blocks other writers from its beginning to its end, so nothing
        that it reads can change meanwhile. An optimistic one blocks no other writer: it reads the store as of
        its beginning, and raises TransactionConflictError at its end if another commit has changed what it
        has read, including the results of queries and globs. It suits blocks that take long and seldom
        conflict; `attempts` repeats it.

        Reads by other threads never wait for either kind and see the last commit. The store's methods, called
        by the block's thread, read and write inside it. A nested block is a savepoint.

        Parameters
        ----------
        notes : str
            A description of the transaction, shown in error messages and events.
        timeout : Seconds, optional
            The most seconds to wait for other writers; ``lock_timeout`` if None.
        optimistic : bool
            Whether to block no other writers while the block runs.

        Raises
        ------
        LockTimeoutError
            If another writer does not finish in time; names that writer. Raised on entry, or at the end of
            an optimistic block.
        TransactionConflictError
            At the end of an optimistic block; names the keys.
        """
        if type(notes) is not str:
            notes = _checked_notes(notes)
        if timeout is not None:
            timeout = checked_timeout(timeout)
        return Transaction(self, notes, timeout, bool(optimistic))

    def attempts(self, notes: str = "", *, tries: int = 100, timeout: Seconds | None = None) -> Attempts:
        """Return an iterator over attempts at one optimistic transaction, which ends with its commit.

        ``for attempt in store.attempts("move"): with attempt as tx: ...`` runs the block again after each
        conflict, with a short random pause.

        Parameters
        ----------
        notes : str
            A description of the transaction.
        tries : int
            The most attempts.
        timeout : Seconds, optional
            The seconds after which no further attempt begins; None for no limit.

        Raises
        ------
        TransactionConflictError
            After the last attempt; it has the number of attempts.
        """
        notes = _checked_notes(notes)
        if not isinstance(tries, int) or isinstance(tries, bool):
            raise TypeError(f"tries must be an int, got {describe(tries)}")
        if tries < 1:
            raise ValueError(f"tries must be at least 1, got {tries}")
        make = functools.partial(self.transaction, notes, optimistic=True)
        return Attempts(make, notes, tries, checked_timeout(timeout))

    def transactional(
        self, notes: str | None = None, *, tries: int = 100, timeout: Seconds | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that runs a function in `attempts`, again after each conflict.

        Parameters
        ----------
        notes : str, optional
            A description of the transaction; the function's name if None.
        tries, timeout
            As for `attempts`.
        """
        self.attempts(
            "" if notes is None else notes, tries=tries, timeout=timeout
        )  # raises for wrong arguments

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            check_function(function, "function", "the attempts of latchstore.aio.AsyncStore(store)")
            name = function.__qualname__ if notes is None else notes

            @functools.wraps(function)
            def run(*args: P.args, **kwargs: P.kwargs) -> R:
                for attempt in self.attempts(name, tries=tries, timeout=timeout):
                    with attempt:
                        result = function(*args, **kwargs)
                return result

            return run

        return decorate

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is entered by `with`; for `async with`, use "
            "latchstore.aio.AsyncStore(store)"
        )

    async def __aexit__(self, *error: object) -> NoReturn:
        raise TypeError("for `async with`, use latchstore.aio.AsyncStore(store)")

    def current_transaction(self) -> Transaction | None:
        """Return the innermost open transaction of this thread, to which its calls go, or None."""
        return self._engine.routes.current()

    def snapshot(self) -> Snapshot:
        """Return a read-only store that shows the last commit and does not change.

        Opening it takes the same time whatever the size of the store. While it is open, the store keeps the
        old entries of changed keys: use it as a context manager, or close it.
        """
        snapshot = Snapshot(self.event_manager, self._engine.view())
        snapshot.default_codec = self.default_codec
        return snapshot

    # -- following changes ------------------------------------------------------------------------

    def watch(
        self,
        glob: str = "*",
        filter: Mapping[str, Any] | None = None,
        since: int | None = None,
        *,
        max_buffer: int = 10_000,
        on_overflow: str = "drop",
    ) -> Watch:
        """Return an iterator over the changes committed from now on.

        Each watch has its own buffer, so a slow reader delays neither writers nor other readers.

        Parameters
        ----------
        glob : str
            A pattern of keys, as for `glob`.
        filter : mapping of str to object, optional
            Metadata items and their terms, values or conditions as for `query`, which must match before or
            after the change: a change that ends a match is included.
        since : int, optional
            Begin with the changes committed after this revision, which the store's `history` must still
            have. By default the watch begins now.
        max_buffer : int
            The most changes to keep for the reader.
        on_overflow : str
            What to do with more: ``"drop"`` drops the oldest and returns one `EventsLost` in their place;
            ``"coalesce"`` keeps the latest change of each key, with the value from before its first change,
            for any number of keys, and leaves out keys that were created and deleted.

        Raises
        ------
        CompactedError
            If the history does not reach back to `since`.
        StoreClosedError
            If the store is closed.
        """
        glob = checked_pattern(glob, "glob")
        terms = entry_from_metadata({} if filter is None else filter, "filter")
        interest = Interest(glob, checked_terms(terms, {}))
        since = None if since is None else checked_count(since, "since", 0)
        limit = checked_count(max_buffer, "max_buffer", 1)
        if on_overflow not in ("drop", "coalesce"):
            raise ValueError(f"on_overflow must be 'drop' or 'coalesce', got {describe(on_overflow)}")
        return self._open_watch(glob, interest, since, limit, on_overflow == "coalesce")

    def _open_watch(
        self, glob: str, interest: Interest, since: int | None = None, limit: int = 1, coalesce: bool = False
    ) -> Watch:
        if self._closed:
            raise StoreClosedError("watch: the store is closed; connect() opens it again")
        buffer = ChangeBuffer(interest, limit, coalesce)
        watch = Watch(self, buffer, glob, self._refuse_in_transaction)
        engine = self._engine
        buffer.read_first(engine.between_commits(functools.partial(self._follow, buffer, since)))
        engine.follow()
        return watch

    def _follow(self, buffer: ChangeBuffer, since: int | None, revision: int) -> Iterable[Published]:
        """Add a buffer to the feed; return the past changes. Called between two commits."""
        begin = revision if since is None else since
        if begin > revision:
            raise ValueError(f"since must not be above the last commit's revision, {revision}, got {begin}")
        past = self._engine.past(begin, revision)
        self._feed.add(buffer, revision)
        return past

    def wait_for(self, predicate: Callable[[], T], timeout: Seconds | None = 30.0) -> T:
        """Wait until a predicate about the store is true; return its result.

        Parameters
        ----------
        predicate : callable
            Called without arguments, in this thread with no lock held, now and after changes. To read
            several keys at one instant, let it open a snapshot.
        timeout : Seconds or None
            The most seconds to wait; None for no limit.

        Raises
        ------
        WaitTimeoutError
            If it does not become true in time.
        WatchClosedError
            If the store is closed meanwhile.
        TransactionError
            If it is called inside a transaction of this thread, which blocks other writers.
        """
        check_function(predicate, "predicate", "await latchstore.aio.AsyncStore(store).wait_for")
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("wait_for")
        with self.watch(max_buffer=1) as changes:
            return wait_until(predicate, changes, timeout, listener_name(predicate))

    def wait_for_key(self, key: str, timeout: Seconds | None = 30.0) -> Value:
        """Wait until a key is in the store; return its value.

        Parameters
        ----------
        key : str
        timeout : Seconds or None
            The most seconds to wait; None for no limit.

        Raises
        ------
        WaitTimeoutError, WatchClosedError, TransactionError
            As `wait_for`.
        """
        key = checked_key(key)
        timeout = checked_timeout(timeout)
        self._refuse_in_transaction("wait_for_key")

        def value() -> Value | None:
            try:
                return self.get(key)
            except KeyError:
                return None

        with self._open_watch(key, Interest(key, {}, is_key=True)) as changes:
            found = wait_until(value, changes, timeout, f"key {key!r}", "appear")
        assert found is not None
        return found


def follow_commits(store: TransactionalStore, signal: CommitSignal) -> None:
    """Notify a signal of all commits from now on; do nothing if it is added already.

    For parts of the package that wait for changes and find out by themselves what has changed.

    Raises
    ------
    StoreClosedError
        If the store is closed.
    """
    if store._closed:
        raise StoreClosedError("the store is closed; connect() opens it again")
    store._engine.between_commits(lambda revision: store._feed.add_signal(signal))
    store._engine.follow()


def _checked_notes(notes: str) -> str:
    if not isinstance(notes, str):
        raise TypeError(f"notes must be a str, got {describe(notes)}")
    return exact_string(notes)


document_as("AbstractReadOnlyStore", EntryReader)
document_as("AbstractStore", EntryStore, DeliveredStore, TransactionalStore)
