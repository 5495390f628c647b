"""How a cache's keys are called in its store: those of a namespace have a prefix there.

Public methods of a cache, `_find`, `_attempt` and what its mapping calls get keys as the caller has them. All
others get them as the store has them.

Thread safety: a `Naming` does not change.
"""

from __future__ import annotations

from collections.abc import Iterable

from latchstore.contract.arguments import checked_key


class Naming:
    """Keys as callers have them, and as the store has them.

    Parameters
    ----------
    prefix : str
        What the keys begin with in the store.
    """

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix: str = prefix

    def stored(self, key: str, argument: str = "key") -> str:
        """Return a key as the store has it; TypeError if it is none."""
        return self.prefix + checked_key(key, argument)

    def shown(self, key: str) -> str:
        """Return a key of the store as the caller has it."""
        return key.removeprefix(self.prefix)

    def own(self, keys: Iterable[str]) -> list[str]:
        """Return those keys of the store that are the cache's."""
        return [key for key in keys if key.startswith(self.prefix)] if self.prefix else list(keys)
