"""Workers that use a cache, whose bound they exceed all the time."""

from __future__ import annotations

import contextlib

from latchstore import TransactionConflictError
from tests.soak.scene import CACHED, TIMEOUT, Scene
from tests.soak.workers import RolledBackError, Worker

Value = tuple[str, int]

TAGS = ("even", "odd")

#: Of how many numbers something is remembered.
NUMBERS = 20


class Caches(Worker):
    """Sets, loads, reads and removes values of a cache, by most of the ways there are."""

    def __init__(self, scene: Scene, number: int = 0) -> None:
        super().__init__(scene, number)
        self.cache = scene.cache
        self.remembered = self.cache.memoize(name=f"value of {number}", ttl=0.05)(value_of)

    def step(self) -> None:
        """Use it once."""
        kind = self.random.randrange(8)
        key = f"key/{self.random.randrange(CACHED)}"
        if kind <= 1:
            self._read(key)
        elif kind == 2:
            self._load(key)
        elif kind == 3:
            self._write(key)
        elif kind == 4:
            self._remove(key)
        elif kind == 5:
            self._write_in_a_transaction()
        elif kind == 6:
            number = self.random.randrange(NUMBERS)
            self._expect_value(f"{number}", self.remembered(number))
        else:
            self.scene.expect_bound()

    def rest(self) -> None:
        """Remember all of them: a load that was broken off stays in the list of loads until the next one."""
        for number in range(NUMBERS):
            self._expect_value(f"{number}", self.remembered(number))

    def _expect_value(self, key: str, value: Value | None) -> None:
        self.scene.expect(value is None or value[0] == key, f"{value} is cached as {key!r}")

    def _read(self, key: str) -> None:
        self._expect_value(key, self.cache.get(key))
        for found, value in self.cache.get_many([key, "key/0", "key/1"]).items():
            self._expect_value(found, value)

    def _load(self, key: str) -> None:
        # What another thread's loader raises comes here as well.
        with contextlib.suppress(RolledBackError):
            if self.random.random() < 0.2:
                wanted = [key, *(f"key/{self.random.randrange(CACHED)}" for _ in range(3))]
                for found, value in self.cache.get_many_or_load(wanted, _load_many, timeout=TIMEOUT).items():
                    self._expect_value(found, value)
            else:
                load = _fail if self.random.random() < 0.1 else _load
                self._expect_value(key, self.cache.get_or_load(key, load, timeout=TIMEOUT, ttl=0.5))

    def _write(self, key: str) -> None:
        number = self.random.randrange(4)
        if number == 0:
            self.cache.set(key, (key, number), tags=[self.random.choice(TAGS)], ttl=1.0)
        elif number == 1:
            self.cache.add(key, (key, number))
        elif number == 2:
            with contextlib.suppress(KeyError):
                self.cache.modify(key, lambda value: (value[0], value[1] + 1))
        else:
            keys = [f"key/{self.random.randrange(CACHED)}" for _ in range(5)]
            self.cache.set_many({each: (each, number) for each in keys})

    def _remove(self, key: str) -> None:
        number = self.random.randrange(20)
        if number == 0:
            self.cache.invalidate_tag(self.random.choice(TAGS))
        elif number == 1:
            self.cache.sweep()
        elif number == 2:
            self.cache.clear()
        else:
            self.cache.delete(key)

    def _write_in_a_transaction(self) -> None:
        keys = [f"key/{self.random.randrange(CACHED)}" for _ in range(3)]
        optimistic = self.random.random() < 0.5
        with (
            contextlib.suppress(RolledBackError, TransactionConflictError),
            self.scene.cached.transaction("cached", optimistic=optimistic),
        ):
            for key in keys:
                self.cache.set(key, (key, 0))
                self._expect_value(key, self.cache.get(key))
            self.cache.delete(keys[0])
            if self.random.random() < 0.2:
                raise RolledBackError


def value_of(number: int) -> Value:
    """Return what is remembered of a number."""
    return f"{number}", number


def _load(key: str) -> Value:
    return key, 0


def _load_many(keys: list[str]) -> dict[str, Value]:
    return {key: (key, 0) for key in keys}


def _fail(key: str) -> Value:
    raise RolledBackError
