"""Leases: one process of all machines loads a missing key, and its result counts while it holds the lease.

1. A lease is a field of ``{ns}:l``. Its token is larger than that of every earlier lease, and the server
   checks it in the commit that stores the loaded value (fencing).
2. A commit that sets or deletes the key, or tries to delete it though it is missing, ends the lease in the
   same script (``caches.lua``). So a load that began before is not stored after it, whichever process made
   the change.
3. A lease ends when the loaded value is stored or the load has failed; `SECONDS` after it was taken, by the
   server's clock; and when its process has ended, if the processes of the same machine can detect that.
4. A thread that waits for another process's lease polls, at increasing intervals. If it holds leases, it
   notes in them for which key it waits, and the same script follows who waits for whom: of the threads of a
   circle, the last that begins to wait finds it.

Thread safety: any thread may call any method.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from threading import get_ident
from typing import Any, TypeVar

import msgpack

from latchstore.delivery.waiting import Bell
from latchstore.engine.bounded import circle_error
from latchstore.engine.processes import is_running, this_process
from latchstore.engine.processes import name_of as name_of_process
from latchstore.engine.revocations import Revocation
from latchstore.redis.books import AT_ONCE
from latchstore.redis.bounds import Caches
from latchstore.redis.client import Server
from latchstore.redis.entries import name_of, stored_key
from latchstore.redis.scripts import BOOKS, RELEASE

T = TypeVar("T")

#: Seconds after which a lease ends, even if its process is still loading.
SECONDS = 30.0

#: The interval of a waiting thread's polls: an eighth of the time waited, within these limits.
_SHORTEST, _LONGEST = 0.002, 0.25


class ServerLeases:
    """The leases of a namespace, for one cache of this process.

    Parameters
    ----------
    server : Server
    caches : Caches
    """

    def __init__(self, server: Server, caches: Caches) -> None:
        self._server = server
        self._caches = caches

    def take(self, wanted: Collection[tuple[str, Iterable[str]]]) -> dict[str, int]:
        """Take the leases of those keys that are not leased; return the tokens.

        Parameters
        ----------
        wanted : collection of str and iterable of str
            Keys, each with the tags that its entry will have.
        """
        tokens: dict[str, int] = {}
        for page in _pages(list(wanted)):
            held = self._take(page, b"", tokens)
            for process in set(held.values()):
                if not is_running(process):
                    left = [each for each in page if held.get(each[0]) == process]
                    self._take(left, process.encode(), tokens)
        return tokens

    def _take(
        self, wanted: Sequence[tuple[str, Iterable[str]]], dead: bytes, tokens: dict[str, int]
    ) -> dict[str, str]:
        """Take leases that are free, or those of a dead process; return the holders of the others."""
        flat: list[bytes] = []
        for key, tags in wanted:
            flat += (stored_key(key), msgpack.packb([stored_key(tag) for tag in sorted(tags)]))
        answers = self._server.run(
            BOOKS, b"take", this_process(), get_ident(), SECONDS, secrets.token_bytes(12), dead, *flat
        )
        held: dict[str, str] = {}
        for (key, _), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, int):
                tokens[key] = answer
            else:
                held[key] = answer.decode()
        return held

    def is_held(self, key: str, token: int) -> bool:
        """Return whether the lease with this token is valid."""
        found = self._find(key)
        # A forked child of a loader has the token as well, but no lease.
        return found is not None and (found[0], found[1].decode()) == (token, this_process())

    def holder(self, key: str) -> str | None:
        """Return the process that holds the lease of a key; None if none does, or it has ended."""
        found = self._find(key)
        if found is None or not found[2]:
            return None
        process = found[1].decode()
        return name_of_process(process) if is_running(process) else None

    def _find(self, key: str) -> tuple[int, bytes, int] | None:
        """Return token and process of a lease, and whether its time is not over; None if there is none."""
        found: Any = self._server.run(BOOKS, b"lease", stored_key(key))
        return None if found is None else tuple(found)

    def wait(self, key: str, seconds: float) -> bool:
        """Wait until the key is not leased, at most `seconds`; return whether that is so.

        Raises
        ------
        RecursiveLoadError
            If the holder waits for a load of this thread.
        """
        own = 1
        try:
            own, *circle = self._await(stored_key(key))
            if circle:
                holder, *keys = circle
                raise circle_error(key, holder.decode(), list(map(name_of, keys)))
            return self._wait(key, seconds)
        finally:
            if own:
                # An exception here leaves an outdated note, until the load of this thread ends.
                self._await(b"")

    def _await(self, key: bytes) -> list[Any]:
        found: list[Any] = self._server.run(RELEASE, b"await", this_process(), get_ident(), key)
        return found

    def _wait(self, key: str, seconds: float) -> bool:
        bell, waited = Bell(), 0.0
        while self.holder(key) is not None:
            pause = min(max(_SHORTEST, waited / 8), _LONGEST, seconds - waited)
            if pause <= 0:
                return False
            bell.sleep(pause)
            waited += pause
        return True

    def end(self, held: Mapping[str, int]) -> None:
        """End leases, given as keys with their tokens, that have not ended yet."""
        self._release(this_process(), [(stored_key(key), token) for key, token in held.items()])

    def _release(self, process: str, held: Sequence[tuple[bytes, int]]) -> None:
        for page in _pages(held):
            self._server.run(RELEASE, b"release", process, *[each for pair in page for each in pair])

    def revoke(self, revocation: Revocation) -> None:
        """End leases now, and with the commit of the caller's transaction those taken meanwhile."""
        self._caches.revocations.add(revocation)
        _, covered = self._caches.covered([revocation.covers])
        self._release("", covered)

    def forget(self, revocation: Revocation) -> None:
        """Stop ending leases: the transaction has ended, or the revoking block was rolled back."""
        self._caches.revocations.discard(revocation)


def _pages(each: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(each), AT_ONCE):
        yield each[start : start + AT_ONCE]
