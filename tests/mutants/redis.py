"""`RedisStore` with one thing broken, for the harness to find by several processes.

Each process breaks the package when it attaches, as in ``sqlite.py``; scripts are broken by another text.
What is broken is found by names of the package and by pieces of the scripts, so a change that renames one of
them is told by an error.

Thread safety: a mutant breaks the package before there are threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from latchstore import RedisStore
from latchstore.redis import committing
from latchstore.redis.lease import Lease
from latchstore.redis.publication import ServerPublication
from latchstore.redis.reading import ReadingEngine
from latchstore.redis.scripts import Script
from latchstore.redis.sessions import Sessions
from latchstore.redis.view import RedisView
from tests.mutants import near
from tests.mutants.mutant import replaces
from tests.redis.shared_stores import ServerStores, Where


class RedisMutant(ServerStores):
    """One way to break the store.

    Parameters
    ----------
    broken : callable
        Breaks the package.
    workload, faults : str
    lost : float
        The share of replies that is lost.
    **options
        Of the stores of other processes than the parent, which is to prepare the store in peace.

    Attributes
    ----------
    name, what : str
    workload : str
        The workload that is to find it.
    faults : str
        Faults that have to be put in for that.
    """

    def __init__(
        self, broken: Callable[[], None], workload: str, faults: str = "", lost: float = 0.0, **options: Any
    ) -> None:
        super().__init__(lost)
        self.__module__ = broken.__module__
        self.attribute = broken.__name__
        self.factory = f"{broken.__module__}:{broken.__name__}"
        self.name = broken.__name__.replace("_", " ")
        self.what = (broken.__doc__ or "").strip().rstrip(".")
        self.workload = workload
        self.faults = faults
        self._options = options
        self._break: Callable[[], None] | None = broken

    def attach(self, where: Where, event_manager: Any = None, **options: Any) -> RedisStore:
        broken, self._break = self._break, None
        if broken is not None:
            broken()
        if os.getpid() != where.parent:
            options = {**self._options, **options}
        return super().attach(where, event_manager, **options)

    def __reduce__(self) -> str:
        return self.attribute  # another process finds it by its name, not broken yet


REDIS_MUTANTS: list[RedisMutant] = []


def redis_mutant(
    workload: str, faults: str = "", lost: float = 0.0, **options: Any
) -> Callable[[Callable[[], None]], RedisMutant]:
    """Return a decorator that makes a mutant of a function, with its docstring as the description."""

    def make(broken: Callable[[], None]) -> RedisMutant:
        made = RedisMutant(broken, workload, faults, lost, **options)
        REDIS_MUTANTS.append(made)
        return made

    return make


def _in_script(module: Any, name: str, old: str, new: str) -> None:
    """Put a text in the place of another one in a script, as a module has it."""
    script: Script = vars(module)[name]
    before, found, after = script.text.decode().partition(old)
    assert found, f"{name} does not have {old!r}"
    text = (before + new + after).encode()
    vars(module)[name] = Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def _in_commit(old: str, new: str) -> None:
    """Put a text in the place of another one in the commit script."""
    _in_script(committing, "COMMIT", old, new)
    _in_script(committing, "COMMIT_DELETING", old, new)


def _never_renewed() -> None:
    """Have leases end by their time."""

    @replaces(Lease, "renew")
    def renew(original: Any, self: Any) -> None:
        pass


# -- near caches ------------------------------------------------------------------------------------------


@redis_mutant("near")
def near_cache_filled_unguarded() -> None:
    """A near cache keeps what was read, whatever was committed or read meanwhile."""
    near.fill_unguarded()


@redis_mutant("near", faults="pause")
def near_cache_that_serves_beside_a_silent_log() -> None:
    """A near cache serves what it has, however long ago the log was looked at."""
    near.serve_beside_a_silent_log()


# -- not broken -------------------------------------------------------------------------------------------

#: What is to be found in none of these.
UNBROKEN: list[RedisMutant] = []


def not_broken(
    workload: str, faults: str = "", lost: float = 0.0, **options: Any
) -> Callable[[Callable[[], None]], RedisMutant]:
    """Return a decorator as `redis_mutant` does, for what the harness must not find."""

    def make(broken: Callable[[], None]) -> RedisMutant:
        made = RedisMutant(broken, workload, faults, lost, **options)
        UNBROKEN.append(made)
        return made

    return make


@not_broken("optimistic,indexes")
def unbroken() -> None:
    """Nothing is broken."""


@not_broken("resuming", faults="kill")
def killed() -> None:
    """Processes are killed."""


@not_broken("registers", faults="forks")
def forked() -> None:
    """Processes fork."""


@not_broken("list-append,events", lost=0.01)
def replies_lost() -> None:
    """One of a hundred replies is lost."""


@not_broken("list-append", lease=0.001)
def leases_that_end() -> None:
    """Exclusive transactions take longer than their leases."""
    _never_renewed()


# -- commits ----------------------------------------------------------------------------------------------


@redis_mutant("optimistic")
def no_validation() -> None:
    """An optimistic transaction commits whatever others have changed, but for keys that are gone."""

    @replaces(RedisView, "changed")
    def changed(original: Any, self: Any) -> dict[str, Any]:
        # To delete one that is gone fails by itself.
        return {key: states for key, states in original(self).items() if states[1] is None}


@redis_mutant("list-append", lease=0.001)
def no_fencing() -> None:
    """The commit of an exclusive transaction whose lease is over is made."""
    _never_renewed()
    _in_commit("if a[3] ~= '' then", "if a[3] ~= '' and not lease then\nelseif a[3] ~= '' then")
    _in_commit("string.sub(lease, 1, #a[3]) ~= a[3]", "false")

    @replaces(Lease, "give_back")
    def give_back(original: Any, self: Any) -> bool:
        original(self)
        return True


@redis_mutant("transactions")
def lease_of_others_not_looked_at() -> None:
    """A commit is made while another process has the lease."""
    _in_commit("elseif lease then", "elseif false then")


@redis_mutant("list-append", lost=0.02)
def sent_twice() -> None:
    """What a session has done is not looked at: a commit whose answer was lost is sent again."""
    _in_script(committing, "RESOLVE", "if held then", "if false then")


@redis_mutant("registers", faults="forks")
def session_kept_over_fork() -> None:
    """A forked child goes on with the sessions of its parent."""

    @replaces(Sessions, "renew_in_child")
    def renew_in_child(original: Any, self: Any) -> None:
        if not hasattr(self, "process"):
            original(self)


@redis_mutant("indexes")
def index_outside_the_script() -> None:
    """What a commit adds to the indexes is added by the next one."""
    _in_commit(
        "then reindex() end",
        """then
  -- What the index has no more goes at once: the store would stumble over it by itself.
  local added, late, own_order, own_state = {}, call('GET', ns .. ':late'), order, state
  for i, key in ipairs(order) do added[i] = {key, state[key].new} end
  call('SET', ns .. ':late', cmsgpack.pack(added))
  order, state = {}, {}
  for i, each in ipairs(late and cmsgpack.unpack(late) or {}) do
    order[i], state[each[1]] = each[1], {old = false, new = each[2]}
  end
  reindex()
  order, state = own_order, {}
  for _, key in ipairs(order) do state[key] = {old = own_state[key].old, new = false} end
  reindex()
end""",
    )


# -- reads ------------------------------------------------------------------------------------------------


@redis_mutant("transactions")
def torn_multiget() -> None:
    """A read of many keys reads one after the other."""

    @replaces(ReadingEngine, "entries_of")
    def entries_of(original: Any, self: Any, keys: Sequence[str]) -> dict[str, Any]:
        return {key: self.entry(key) for key in keys}


# -- events -----------------------------------------------------------------------------------------------


@redis_mutant("events")
def events_lost() -> None:
    """A process passes over every fifth commit of others."""

    @replaces(ServerPublication, "publish_logged")
    def publish_logged(original: Any, self: Any, commit: Any) -> None:
        if commit.revision % 5 or commit.id in self.own:
            original(self, commit)
        else:
            self.seen = commit.revision


@redis_mutant("events")
def events_told_twice() -> None:
    """A process tells again of every fifth commit."""

    @replaces(ServerPublication, "publish_logged")
    def publish_logged(original: Any, self: Any, commit: Any) -> None:
        original(self, commit)
        if not commit.revision % 5:
            revision, author, deliveries = self.queued_of(commit)
            self.publisher.publish(commit.changes, revision, author, deliveries)


@redis_mutant("resuming")
def resume_off_by_one() -> None:
    """A watch that goes on after a revision leaves out the commit that comes next."""

    @replaces(ServerPublication, "past")
    def past(original: Any, self: Any, since: int, revision: int) -> Any:
        return original(self, since + 1, revision)
