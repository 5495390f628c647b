"""Who may read and write a file, at every moment of a save and after it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.files.paths import in_child, load, reading, writing

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = 65534


@pytest.fixture
def shared(path: Path) -> Iterator[Path]:
    """The same in a directory that every user may write to."""
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o777)
    try:
        yield Path(shutil.copy2(path, directory))
    finally:
        shutil.rmtree(directory)


@contextmanager
def first_modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[os.stat_result]]:
    """Note what files are at the moment at which they are made."""
    found: list[os.stat_result] = []
    opened = os.open

    def note(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        descriptor = opened(path, flags, mode, **options)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
            found.append(os.fstat(descriptor))
        return descriptor

    with monkeypatch.context() as context:
        context.setattr(os, "open", note)
        yield found


@writing
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o444, 0o400, 0o666, 0o000, 0o755])
def test_nobody_may_read_the_new_file_who_may_not_read_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], mode: int, mask: int
) -> None:
    path.chmod(mode)
    before = os.umask(mask)
    try:
        with first_modes(monkeypatch) as found:
            write(path)
    finally:
        os.umask(before)
    (first,) = found
    assert stat.S_IMODE(first.st_mode) & 0o177 & ~mode == 0
    if mask == 0o022 and mode & 0o022 == 0:
        assert stat.S_IMODE(first.st_mode) == mode | 0o600
    assert stat.S_IMODE(path.stat().st_mode) == mode


@needs_root
@writing
def test_the_owner_stays_and_no_group_has_the_new_file_before_it_is_the_right_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    os.chown(path, NOBODY, 12_345)
    path.chmod(0o4660)
    with first_modes(monkeypatch) as found:
        write(path)
    assert stat.S_IMODE(found[0].st_mode) & 0o077 == 0
    new = path.stat()
    assert (new.st_uid, new.st_gid, stat.S_IMODE(new.st_mode)) == (NOBODY, 12_345, 0o4660)


@needs_root
@writing
def test_the_group_of_the_directory_may_not_read_it_either(
    path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    path.chmod(0o660)
    os.chown(path.parent, 0, 12_345)
    path.parent.chmod(0o2777)
    with first_modes(monkeypatch) as found:
        write(path)
    assert stat.S_IMODE(found[0].st_mode) & 0o070 == 0
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o660)


@needs_root
@writing
def test_another_user_replaces_a_file_whose_owner_cannot_be_kept(
    shared: Path, write: Callable[[Path], object]
) -> None:
    shared.chmod(0o6644)
    assert in_child(lambda: write(shared), NOBODY) == "None"
    new = shared.stat()
    # It is not run as its new owner.
    assert (new.st_uid, stat.S_IMODE(new.st_mode)) == (NOBODY, 0o644)
    assert os.listdir(shared.parent) == [shared.name]


@needs_root
@writing
def test_a_file_of_ones_own_that_is_read_only_is_replaced(
    shared: Path, write: Callable[[Path], object]
) -> None:
    os.chown(shared, NOBODY, NOBODY)
    shared.chmod(0o444)
    assert in_child(lambda: write(shared), NOBODY) == "None"
    assert stat.S_IMODE(shared.stat().st_mode) == 0o444


@needs_root
@writing
@pytest.mark.parametrize("mode", [0o755, 0o1777], ids=oct)
def test_where_another_user_may_not_write(shared: Path, write: Callable[[Path], object], mode: int) -> None:
    content = shared.read_bytes()
    shared.parent.chmod(mode)
    assert in_child(lambda: write(shared), NOBODY) == "PermissionError"
    assert shared.read_bytes() == content
    assert os.listdir(shared.parent) == [shared.name]


@needs_root
@reading
def test_what_another_user_may_not_read(shared: Path, read: Callable[[Path], object]) -> None:
    shared.chmod(0o600)
    assert in_child(lambda: read(shared), NOBODY) == "PermissionError"


@needs_root
def test_one_who_may_read_alone_can_load(shared: Path) -> None:
    shared.chmod(0o444)
    shared.parent.chmod(0o555)
    assert in_child(lambda: load(shared), NOBODY) == "b'old'"
