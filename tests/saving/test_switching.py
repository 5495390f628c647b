"""The interpreter is switched often while a file is written or read, and as before at all other times."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latchstore import DictMemoryStore, EventManager, StoreFormatError
from latchstore.contract.switching import INTERVAL
from tests.fork.children import in_child, needs_fork
from tests.saving.stores import TIMEOUT, new_store

USUAL = 0.004


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The interval at each look at a file, those of pytest among them."""
    noted: list[float] = []
    look = os.fstat

    def note(descriptor: int) -> os.stat_result:
        noted.append(sys.getswitchinterval())
        return look(descriptor)

    monkeypatch.setattr(os, "fstat", note)
    return noted


def test_a_save_and_a_load(path: Path, seen: list[float]) -> None:
    seen.clear()
    new_store().save(path)
    saving = list(seen)
    seen.clear()
    DictMemoryStore.load(path, EventManager())
    assert set(saving) == set(seen) == {INTERVAL}
    assert sys.getswitchinterval() == USUAL


def test_those_that_fail(path: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="director"):
        new_store().save(tmp_path)
    assert sys.getswitchinterval() == USUAL
    path.write_bytes(b"something else")
    with pytest.raises(StoreFormatError):
        DictMemoryStore.load(path, EventManager())
    assert sys.getswitchinterval() == USUAL


def test_a_shorter_interval_of_the_application_stays(path: Path, seen: list[float]) -> None:
    sys.setswitchinterval(INTERVAL / 2)
    seen.clear()
    new_store().save(path)
    assert set(seen) == {INTERVAL / 2}
    assert sys.getswitchinterval() == INTERVAL / 2


class Halted:
    """A save that another thread has begun, and that stops before it replaces its file."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor) -> None:
        inside = threading.Event()
        self._go_on = threading.Event()
        replace = os.replace

        def replace_late(source: str, target: str) -> None:
            if target == str(path):
                inside.set()
                assert self._go_on.wait(TIMEOUT)
            replace(source, target)

        monkeypatch.setattr(os, "replace", replace_late)
        self._save = pool.submit(new_store().save, path)
        assert inside.wait(TIMEOUT)

    def end(self) -> None:
        self._go_on.set()
        self._save.result(TIMEOUT)


def test_two_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that begins later neither restores the interval nor keeps it short."""
    with ThreadPoolExecutor() as pool:
        first = Halted(path, monkeypatch, pool)
        new_store().save(path.with_name("other"))
        assert sys.getswitchinterval() == INTERVAL
        first.end()
    assert sys.getswitchinterval() == USUAL


def interval_is_usual() -> None:
    assert sys.getswitchinterval() == USUAL


@needs_fork
def test_a_child_that_is_forked_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor() as pool:
        first = Halted(path, monkeypatch, pool)
        assert in_child(interval_is_usual) == ""
        assert sys.getswitchinterval() == INTERVAL
        first.end()
    assert in_child(interval_is_usual) == ""
