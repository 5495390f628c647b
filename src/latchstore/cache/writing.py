"""The writing part of a cache, and its invalidation.

Thread safety: each write is one conditional commit of the store, which includes the evictions. The commit
itself marks a running load of the key as overtaken (`LoadTable.note_written`), under the table lock. A
deletion in a transaction is noted when it is requested (`Removal`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from latchstore.cache.load import MISSING, Load
from latchstore.cache.loading import LoadedInside, Removal
from latchstore.cache.options import DEFAULT_OPTIONS, TAGS, Options, SetOptions, checked_options
from latchstore.cache.reading import CacheReader
from latchstore.contract.arguments import (
    check_function,
    checked_count,
    checked_key,
    checked_seconds,
    describe,
)
from latchstore.contract.codec import V, encoded
from latchstore.contract.contains import Contains
from latchstore.contract.errors import RevisionMismatchError, TransactionClosedError
from latchstore.contract.glob_pattern import checked_pattern, escaped, matcher
from latchstore.contract.values import Entry, ReferenceEntry, with_metadata_of
from latchstore.engine.edits import Delete, Edit, IfRevision, SetMetadata
from latchstore.engine.entry_facts import EXPIRES, WEIGHT
from latchstore.engine.revocations import Revocation

if TYPE_CHECKING:
    from latchstore.contract.seconds import Seconds

T = TypeVar("T")

_DELETE = Delete()


class CacheWriter(CacheReader[V]):
    """The part of a `Cache` that does not load."""

    # Whether the store has an index on the tags of entries.
    _has_tag_index = False

    def __setitem__(self, key: str, value: V) -> None:
        self.set(key, value)

    def set(self, key: str, value: V, **options: Unpack[SetOptions]) -> None:
        """Set the value of a key; the same commit evicts others if the cache is full.

        Parameters
        ----------
        key : str
        value : object
            Any object that the codec can encode; with ``"reference"`` any object, which is then shared.
        ttl : Seconds or callable, optional
            Seconds or a timedelta after which the entry expires; the cache's own if None, infinity for never.
            Or a callable that gets the value and returns that, called with no lock held.
        idle : Seconds, optional
            Time without a hit after which the entry expires; the cache's own if None.
        refresh_after : Seconds, optional
            Time after which `get_or_load` loads the key again, while other callers get the old value.
        weight : int, optional
            Weight in bytes; by default the length of its parts, or for a reference the result of `sizeof`.
        tags : iterable of str, optional
            Tags by which the entry can be invalidated.
        metadata : mapping, optional
            Further items for the entry's metadata.

        Raises
        ------
        EntryTooLargeError
            If the entry weighs more than the whole cache may.
        CodecError
            If the value cannot be encoded.
        """
        if type(key) is not str:
            key = checked_key(key)
        # hot path: most entries are set without options.
        checked = checked_options(SetOptions, options, self._defaults) if options else self._defaults
        content = value if self._shares else self._encoded(key, value)
        if checked is DEFAULT_OPTIONS:
            # hot path: like `_entry_of`, for an entry without options.
            entry, now = self._with_content(key, content), None
        else:
            if checked.ttl_of is not None:
                checked = checked.of_set(value)
            entry, now = self._entry_of(key, content, checked)
        self._write(((key, entry),), "set", now)

    def _encoded(self, key: str, value: Any) -> Any:
        """Return the content of a value's entry."""
        # hot path: values that need no encoding.
        if self._shares or (self._is_raw and type(value) is bytes):
            return value
        return encoded(self._codec, key, value)

    def _put(
        self,
        key: str,
        content: Any,
        options: Options,
        check: Callable[[], None] | None = None,
        expected: int | None = None,
        load: Load | None = None,
    ) -> None:
        """Set the content of a key, if the check does not raise and the key has the expected revision.

        In a transaction the content may be the result of a load.
        """
        entry, now = self._entry_of(key, content, options)
        edit: Edit = entry if load is None else LoadedInside(entry, load)
        if expected is not None:
            edit = IfRevision(entry, expected)
        self._write(((key, edit),), "set", now, check)

    def _entry_of(self, key: str, content: Any, options: Options) -> tuple[Entry, float | None]:
        """Return a new entry, and the clock reading at which it was made."""
        if options is DEFAULT_OPTIONS:
            return self._with_content(key, content), None
        if options.tags:
            self._index_tags(options)
        now = self._bounded.now()
        return self._with_content(key, content, options.entry(now)), now

    def _with_content(self, key: str, content: Any, items: Entry | None = None) -> Entry:
        """Return a new entry with a content; it may be `items` itself, or share its metadata.

        Calls `sizeof`, with no lock held. Without `sizeof`, bytes weigh as much as data of other writers.
        """
        if self._shares and (type(content) is not bytes or self._sizeof is not None):
            size = 1
            if self._sizeof is not None and (items is None or WEIGHT not in items):
                size = checked_count(self._sizeof(content), "the result of sizeof", 0)
            return ReferenceEntry(key, content, size, items)
        entry = Entry() if items is None else items
        entry.content = content
        return entry

    def _write(
        self,
        edits: tuple[tuple[str, Edit], ...],
        purpose: str,
        now: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        # hot path: there is a detour only if a transaction is open.
        if self._detours.detour is not None:
            inside = self._bounded.current_transaction() is not None
            for key, _ in edits:
                self._loads.outdate(key)
                if inside:
                    self._loads.overtake(key)
        self._bounded.write(edits, purpose, now=now, check=check)
        if self._failures:
            for key, _ in edits:
                self._failures.pop(key, None)

    def set_many(self, values: Mapping[str, V], **options: Unpack[SetOptions]) -> None:
        """Set many keys in one commit; options as for `set`."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping of keys to values, got {describe(values)}")
        checked = checked_options(SetOptions, options, self._defaults)
        # Encoded first, as encoding may run arbitrary code and take long.
        contents = [
            (self._naming.stored(key, "a key of values"), self._encoded(key, value), checked.of_set(value))
            for key, value in values.items()
        ]
        entries = {key: self._entry_of(key, content, kept) for key, content, kept in contents}
        now = next((now for _, now in entries.values()), None)
        self._write(tuple((key, entry) for key, (entry, _) in entries.items()), "set_many", now)

    def update(  # type: ignore[override]
        self, other: Mapping[str, V] | Iterable[tuple[str, V]] = (), /, **more: V
    ) -> None:
        """Set many keys in one commit."""
        self.set_many(dict(other, **more))

    def add(self, key: str, value: V, **options: Unpack[SetOptions]) -> bool:
        """Set a key if it is missing or expired; return whether it was set. Options as for `set`."""
        key = self._naming.stored(key)
        checked = checked_options(SetOptions, options, self._defaults).of_set(value)
        content = self._encoded(key, value)
        while True:
            entry = self._entry(key)
            if entry is not None and self._bounded.use(key, entry):
                return False
            try:
                self._put(key, content, checked, expected=0 if entry is None else entry.revision)
            except RevisionMismatchError:
                continue
            return True

    @overload
    def modify(
        self, key: str, function: Callable[[V | T], V], *, default: T, **options: Unpack[SetOptions]
    ) -> V: ...

    @overload
    def modify(self, key: str, function: Callable[[V], V], **options: Unpack[SetOptions]) -> V: ...

    def modify(
        self,
        key: str,
        function: Callable[[Any], Any],
        *,
        default: Any = MISSING,
        **options: Unpack[SetOptions],
    ) -> Any:
        """Replace a key's value by the result of a function of it, atomically.

        The entry keeps its tags and its time of expiry.

        Parameters
        ----------
        key : str
        function : callable
            Called with the value, with no lock held; returns the new value. It is called again if another
            writer has changed the entry meanwhile.
        default : object, optional
            Passed to the function if the key is missing or expired.
        **options
            Options of a new entry, as for `set`.

        Returns
        -------
        value : object
            The result of the function.

        Raises
        ------
        KeyError
            If the key is missing or expired, and no default is given.
        """
        shown, key = key, self._naming.stored(key)
        check_function(function, "function", "a plain function, and await before the call")
        checked = checked_options(SetOptions, options, self._defaults)
        while True:
            before = self._entry(key)
            live = before is not None and self._bounded.use(key, before)
            if not live and default is MISSING:
                raise KeyError(shown)
            value = function(self._decoded(key, before.content) if live else default)  # type: ignore[union-attr]
            content = self._encoded(key, value)
            if live:
                entry, now = self._with_content(key, content, with_metadata_of(before)), None
            else:
                entry, now = self._entry_of(key, content, checked.of_set(value))
            # All writes of a transaction have the same revision, but each makes a new entry object.
            if self._bounded.current_transaction() is not None:
                there = self._entry(key)
                if there is not before and (before is None or not self._bounded.is_same(there, before)):
                    continue
            try:
                self._write(((key, IfRevision(entry, _revision_of(before))),), "modify", now)
            except RevisionMismatchError:
                continue
            return value

    def touch(self, key: str, ttl: Seconds | None = None) -> bool:
        """Let a key expire `ttl` seconds from now, the cache's own if None; return whether the key exists."""
        key = self._naming.stored(key)
        ttl = self._defaults.ttl if ttl is None else checked_seconds(ttl, "ttl")
        while (before := self._live_entry(key)) is not None:
            metadata, now = with_metadata_of(before), None
            metadata.pop(EXPIRES, None)
            if ttl is not None:
                now = self._bounded.now()
                metadata[EXPIRES] = now + ttl
            try:
                edit = IfRevision(SetMetadata(metadata), before.revision)
                self._bounded.write(((key, edit),), "touch", now=now)
            except RevisionMismatchError:
                continue
            return True
        return False

    def _index_tags(self, options: Options) -> None:
        """Make an index on tags in the store, if one is useful."""
        if self._has_tag_index or not options.tags or self._bounded.current_transaction() is not None:
            return
        add_index = getattr(self.store, "add_index", None)
        if add_index is not None:
            add_index(TAGS)
        self._has_tag_index = True

    def sweep(self) -> int:
        """Evict entries that have expired or were idle for too long; return their number.

        The cost is proportional to the number of expired entries, plus those whose time of expiry has since
        been extended. No thread calls it: without a call, later commits of the cache evict expired entries, a
        few each, and they use memory until then.
        """
        return self._bounded.sweep()

    # -- invalidating -----------------------------------------------------------------------------

    def delete(self, key: str) -> bool:
        """Remove a key; return whether it existed and had not expired.

        A running load of the key does not store its result.
        """
        key = self._naming.stored(key)
        if self._bounded.current_transaction() is not None:
            self._overtake(lambda other, tags: other == key)
        elif self._detours.detour is not None:
            self._loads.outdate(key)
        try:
            while True:
                entry = self._entry(key)
                there = entry is not None and not self._bounded.is_expired(key, entry)
                edit: Edit = _DELETE if entry is None else IfRevision(_DELETE, entry.revision)
                try:
                    self._bounded.write(((key, edit),), "delete")
                    return there
                except RevisionMismatchError:
                    continue
                except KeyError:
                    return False
        finally:
            self._failures.pop(key, None)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def _remove(self, key: str) -> None:
        self.delete(key)

    def _take(self, key: str, found: Entry, notes: str) -> bool:
        with self.store.transaction(notes):
            # Compare the entry by identity, as comparing its content may run arbitrary code.
            stored = self._naming.stored(key)
            if not self._is_there(stored, found) or self._bounded.is_expired(stored, found):
                return False
            self._remove(key)
            return True

    def _is_there(self, key: str, found: Entry) -> bool:
        """Return whether the key still has the entry that was found."""
        return self._bounded.is_same(self._entry(key), found)

    def _add(self, key: str, value: V) -> bool:
        return self.add(key, value)

    def clear(self) -> None:
        """Remove all keys in one transaction; running loads do not store their results."""
        self._delete_all("clear", lambda key, tags: True, self.store.query_keys)

    def invalidate_tag(self, tag: str) -> int:
        """Remove all entries with a tag in one transaction; return their number."""
        tag = checked_key(tag, "tag")
        find = functools.partial(self.store.query_keys, where={TAGS: Contains(tag)})
        return self._delete_all(f"invalidate tag {tag!r}", lambda key, tags: tag in tags, find)

    def delete_glob(self, pattern: str) -> int:
        """Remove all keys that match a pattern, as for ``store.glob``, in one transaction; return how many.

        Running loads do not store their results.
        """
        stored = checked_pattern(escaped(self._naming.prefix) + checked_pattern(pattern))
        matches, find = matcher(stored), functools.partial(self.store.glob, stored)
        return self._delete_all(f"delete {pattern!r}", lambda key, tags: matches(key), find)

    def _delete_all(
        self,
        notes: str,
        is_meant: Callable[[str, frozenset[str]], object],
        find: Callable[[], Iterable[str]],
    ) -> int:
        """Remove those keys of the cache that `find` returns, in one transaction; return their number.

        Loads for which `is_meant`, called with key and tags, returns true do not store their results, and
        failures likewise are removed.
        """
        prefix = self._naming.prefix

        def covers(key: str, tags: frozenset[str]) -> object:
            return key.startswith(prefix) and is_meant(key, tags)

        with self.store.transaction(notes):
            self._overtake(covers)
            self._failures.forget(covers)
            keys = self._naming.own(find())
            for key in keys:
                self.store.delete(key)
        return len(keys)

    def _overtake(self, covers: Callable[[str, frozenset[str]], object]) -> None:
        """Keep loads from storing deleted keys: running loads, and those that begin before the commit."""
        removal, leases = Removal(covers), self._bounded.leases
        transaction = self._bounded.current_transaction()
        if transaction is None:
            raise TransactionClosedError(
                "a signal handler or a finalizer has ended the transaction meanwhile"
            )
        # The end first: if such a call ends the transaction in between, the removal never begins.
        transaction.on_commit(functools.partial(self._loads.end_removal, removal, True))
        transaction.on_rollback(functools.partial(self._loads.end_removal, removal, False))
        self._loads.begin_removal(removal)
        if leases is not None:
            revocation = Revocation(covers)
            transaction.on_commit(functools.partial(leases.forget, revocation))
            transaction.on_rollback(functools.partial(leases.forget, revocation))
            leases.revoke(revocation)


def _revision_of(entry: Entry | None) -> int:
    return 0 if entry is None else entry.revision
