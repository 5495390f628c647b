"""Names of a cache's keys in its store: keys of a namespace have a prefix there.

Public methods of a cache, `_find`, `_attempt` and the mapping's hooks take keys as the caller uses them. All
other functions take them as they are in the store.

Thread safety: a `Naming` is immutable.
"""

from __future__ import annotations

from collections.abc import Iterable

from latchstore.contract.arguments import checked_key


class Naming:
    """Converts between the keys of callers and the keys of the store.

    Parameters
    ----------
    prefix : str
        The prefix of the keys in the store.
    """

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix: str = prefix

    def stored(self, key: str, argument: str = "key") -> str:
        """Return the store's name of a key; TypeError if it is not a valid key."""
        return self.prefix + checked_key(key, argument)

    def shown(self, key: str) -> str:
        """Return the caller's name of a key of the store."""
        return key.removeprefix(self.prefix)

    def own(self, keys: Iterable[str]) -> list[str]:
        """Return those keys of the store that belong to the cache."""
        return [key for key in keys if key.startswith(self.prefix)] if self.prefix else list(keys)
