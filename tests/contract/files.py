"""Writing to files: the file is there whole or not at all, and is the file that was asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore import AbstractStore
from tests.contract.stores import StoreContract, facts, stream

posix = pytest.mark.skipif(os.name != "posix", reason="needs the files of Unix")

#: More than one buffer of the smallest sort, and more than `file_size_limit`.
LARGE = bytes(range(256)) * 1000


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class ToFileContract(StoreContract):
    """`to_file`."""

    @pytest.fixture
    def file_size_limit(self) -> Iterator[int]:
        """Let writing fail beyond so many bytes of a file, for root as well."""
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = 64 * 1024
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        yield limit
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.fixture(autouse=True)
    def filled(self, store: AbstractStore) -> None:
        store.set("a", (stream(b"0123456789\r\n"), {"name": "a"}))
        store.set("empty", (stream(b""), {}))
        store.set("large", (stream(LARGE), {}))

    @pytest.mark.parametrize("kind", [str, Path, os.fsencode])
    def test_a_new_file(self, store: AbstractStore, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "file"
        store.to_file("a", kind(path))
        assert path.read_bytes() == b"0123456789\r\n"
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize("size", [1, 1000, 10**9])
    def test_large_data_in_small_blocks(self, store: AbstractStore, tmp_path: Path, size: int) -> None:
        path = tmp_path / "file"
        store.to_file("large", path, buffer_size=size)
        assert path.read_bytes() == LARGE

    def test_an_empty_file(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        store.to_file("empty", path)
        assert path.read_bytes() == b""

    def test_an_old_file_is_replaced(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old and longer than the new one")
        with open(path, "rb") as old:
            store.to_file("a", path)
            # Whoever has the old file open goes on reading it: it was replaced, not written over.
            assert old.read() == b"old and longer than the new one"
        assert path.read_bytes() == b"0123456789\r\n"
        assert os.listdir(tmp_path) == ["file"]

    def test_there_and_back(self, store: AbstractStore, tmp_path: Path) -> None:
        store.to_file("large", tmp_path / "file")
        store.from_file("back", tmp_path / "file")
        assert store.to_bytes("back") == LARGE

    def test_a_path_relative_to_the_directory(
        self, store: AbstractStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store.to_file("a", "file")
        assert (tmp_path / "file").read_bytes() == b"0123456789\r\n"
        store.from_file("b", "file")
        assert store.to_bytes("b") == b"0123456789\r\n"

    def test_writing_changes_nothing_in_the_store(self, store: AbstractStore, tmp_path: Path) -> None:
        before = facts(store)
        store.to_file("a", tmp_path / "file")
        assert facts(store) == before

    # -- permissions and links --------------------------------------------------------------------

    @posix
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
    def test_a_new_file_has_the_mode_that_open_gives(
        self, store: AbstractStore, tmp_path: Path, mask: int
    ) -> None:
        before = os.umask(mask)
        try:
            store.to_file("a", tmp_path / "ours")
            (tmp_path / "theirs").write_bytes(b"")
        finally:
            os.umask(before)
        assert mode(tmp_path / "ours") == mode(tmp_path / "theirs")

    @posix
    @pytest.mark.parametrize("permissions", [0o600, 0o640, 0o666, 0o755, 0o444])
    def test_an_old_file_keeps_its_permissions(
        self, store: AbstractStore, tmp_path: Path, permissions: int
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        path.chmod(permissions)
        store.to_file("a", path)
        assert path.read_bytes() == b"0123456789\r\n"
        assert mode(path) == permissions

    @posix
    def test_a_symbolic_link_is_followed(self, store: AbstractStore, tmp_path: Path) -> None:
        (tmp_path / "links").mkdir()
        (tmp_path / "files").mkdir()
        link, target = tmp_path / "links" / "link", tmp_path / "files" / "file"
        target.write_bytes(b"old")
        target.chmod(0o640)
        link.symlink_to(target)
        store.to_file("a", link)
        assert link.is_symlink()
        assert target.read_bytes() == b"0123456789\r\n"
        assert mode(target) == 0o640
        assert os.listdir(tmp_path / "links") == ["link"]
        assert os.listdir(tmp_path / "files") == ["file"]

    @posix
    def test_a_symbolic_link_to_nothing_yet(self, store: AbstractStore, tmp_path: Path) -> None:
        link, target = tmp_path / "link", tmp_path / "file"
        link.symlink_to("file")
        store.to_file("a", link)
        assert link.is_symlink()
        assert target.read_bytes() == b"0123456789\r\n"

    @posix
    def test_a_pipe_is_written_to(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        # Opened first and without waiting, so that the writer finds a reader and nobody hangs.
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            store.to_file("a", path)
            assert os.read(reader, 100) == b"0123456789\r\n"
        finally:
            os.close(reader)
        assert stat.S_ISFIFO(path.stat().st_mode)
        assert os.listdir(tmp_path) == ["pipe"]

    @posix
    def test_a_device_is_written_to(self, store: AbstractStore) -> None:
        store.to_file("large", os.devnull)
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)

    # -- failures ---------------------------------------------------------------------------------

    def test_a_missing_key_touches_no_file(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with pytest.raises(KeyError) as caught:
            store.to_file("nowhere", path)
        assert caught.value.args == ("nowhere",)
        assert os.listdir(tmp_path) == []
        path.write_bytes(b"old")
        with pytest.raises(KeyError):
            store.to_file("nowhere", path)
        assert path.read_bytes() == b"old"

    @posix
    def test_the_old_file_is_intact_when_writing_fails(
        self, store: AbstractStore, tmp_path: Path, file_size_limit: int
    ) -> None:
        assert len(LARGE) > file_size_limit
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match="too large"):
            store.to_file("large", path, 1000)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    @posix
    def test_nothing_is_left_behind_when_writing_fails(
        self, store: AbstractStore, tmp_path: Path, file_size_limit: int
    ) -> None:
        with pytest.raises(OSError, match="too large"):
            store.to_file("large", tmp_path / "file", 1000)
        assert os.listdir(tmp_path) == []

    def test_a_missing_directory(self, store: AbstractStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.to_file("a", tmp_path / "missing" / "file")
        assert os.listdir(tmp_path) == []

    def test_a_directory_is_no_file(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / "directory"
        path.mkdir()
        with pytest.raises(OSError, match="directory"):
            store.to_file("a", path)
        assert os.listdir(tmp_path) == ["directory"]
        assert os.listdir(path) == []

    @posix
    def test_a_name_as_long_as_the_system_allows(self, store: AbstractStore, tmp_path: Path) -> None:
        path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
        store.to_file("a", path)
        assert path.read_bytes() == b"0123456789\r\n"
