"""An index on one metadata item: the keys by their values.

For `query(name=value)` an index returns all keys that a scan would find, and maybe a few more that the
caller's own ``==`` then excludes.

Thread safety: none of its own. It is changed under the write side of the table lock, or before it is
published, and read under the read side. No method of a user's object runs here: only values that are
`values.is_immutable` (whose hash and equality are CPython's own) are looked up in the dict; keys with any
other value are in a separate set, and the caller compares them outside the locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from latchstore.contract.contains import Contains, In
from latchstore.contract.values import Change, Entry, is_immutable

_ABSENT: Any = object()

#: The types whose items are indexed for `Contains`; lists and sets are mutable.
_COLLECTIONS = frozenset({tuple, frozenset})


class MetadataIndex:
    """The keys by their values of one metadata item.

    Parameters
    ----------
    name : str
        The metadata item.
    """

    __slots__ = ("_buckets", "_by_item", "_unhashed", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        # A bucket of one key is the key itself, one of several a set: sets are large, and unique values are
        # common. 1, True and 1.0 share a bucket, since they are equal.
        self._buckets: dict[Any, str | set[str]] = {}
        # Keys whose value is not hashed: it is mutable, or has its own hash or equality.
        self._unhashed: set[str] = set()
        # Keys whose value is a tuple or frozenset, by each of its items.
        self._by_item: dict[Any, set[str]] = {}

    def replace_all(self, changes: Iterable[Change]) -> None:
        """Record the changes of a commit; may be repeated, so an interruption is repaired by a repetition."""
        for key, old, new in changes:
            self.replace(key, old, new)

    def replace(self, key: str, old: Entry | None, new: Entry | None) -> None:
        """Record that the entry of `key` was `old` and is now `new`; None for no entry.

        It may be repeated, so that an interrupted commit can be finished.
        """
        before = _ABSENT if old is None else old.get(self.name, _ABSENT)
        after = _ABSENT if new is None else new.get(self.name, _ABSENT)
        if before is after:
            return
        if after is not _ABSENT:
            self._add(key, after)
        if before is not _ABSENT:
            self._discard(key, before, unless=after)
        if type(after) in _COLLECTIONS or type(before) in _COLLECTIONS:
            self._replace_items(key, _items(before), _items(after))

    def _replace_items(self, key: str, before: frozenset[Any], after: frozenset[Any]) -> None:
        for item in after:
            self._by_item.setdefault(item, set()).add(key)
        for item in before - after:
            keys = self._by_item.get(item)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_item[item]

    def _add(self, key: str, value: Any) -> None:
        if not is_immutable(value):
            self._unhashed.add(key)
            return
        bucket = self._buckets.setdefault(value, key)
        if type(bucket) is set:
            bucket.add(key)
        elif bucket != key:
            self._buckets[value] = {bucket, key}  # type: ignore[arg-type]

    def _discard(self, key: str, value: Any, unless: Any) -> None:
        """Remove the value of `key`, unless its bucket is also that of the new value `unless`."""
        if not is_immutable(value):
            if unless is _ABSENT or is_immutable(unless):
                self._unhashed.discard(key)
            return
        if value not in self._buckets or self._shares_bucket(value, unless):
            return
        bucket = self._buckets[value]  # not ``get``: see ``DictMemoryStore._write_one``
        if type(bucket) is set:
            bucket.discard(key)
            if not bucket:
                del self._buckets[value]
        elif bucket == key:
            del self._buckets[value]

    def _shares_bucket(self, value: Any, other: Any) -> bool:
        """Return whether a dict treats both as the same key: they are equal, or the same NaN."""
        if other is _ABSENT or not is_immutable(other):
            return False
        return value is other or bool(value == other)

    def candidates(self, value: Any) -> Iterable[str] | None:
        """Return the keys that may have `value`, without duplicates; None if a scan is needed.

        The result may be the index's own set: it must be read before the table lock is released.
        """
        if type(value) is Contains and is_immutable(value.item):
            return self._by_item.get(value.item, frozenset()) | self._unhashed
        if type(value) is In and is_immutable(value.values):
            return self._unhashed.union(*[self._bucket(each) for each in value.values])
        if not is_immutable(value):
            return None
        if value not in self._buckets:
            return self._unhashed
        bucket = self._buckets[value]
        if type(bucket) is not set:
            bucket = {bucket}  # type: ignore[arg-type]
        return bucket | self._unhashed if self._unhashed else bucket

    def _bucket(self, value: Any) -> Iterable[str]:
        bucket = self._buckets[value] if value in self._buckets else ()
        return (bucket,) if type(bucket) is str else bucket

    def __len__(self) -> int:
        """Return the number of different values."""
        return len(self._buckets)

    def check(self, entries: dict[str, Entry]) -> None:
        """Raise AssertionError unless the index matches `entries` exactly; for tests."""
        fresh = MetadataIndex(self.name)
        for key, entry in entries.items():
            fresh.replace(key, None, entry)
        assert self._unhashed == fresh._unhashed, (self.name, self._unhashed ^ fresh._unhashed)
        assert set(self._buckets) == set(fresh._buckets), self.name
        assert self._by_item == fresh._by_item, self.name
        for value, bucket in fresh._buckets.items():
            assert _as_set(self._buckets[value]) == _as_set(bucket), (self.name, value)


def _items(value: Any) -> frozenset[Any]:
    return frozenset(value) if type(value) in _COLLECTIONS and is_immutable(value) else frozenset()


def _as_set(bucket: str | set[str]) -> set[str]:
    return bucket if isinstance(bucket, set) else {bucket}
