"""Files that cannot be a store's, as SQLite could not share them between processes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchstore import EventManager, SqliteStore, StoreFormatError
from latchstore.sqlite import file_checks
from latchstore.sqlite.file_checks import checked_file, network_of
from tests.files.paths import in_child

MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:40 / /home rw,relatime shared:9 master:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/local rw - xfs /dev/vdb rw
32 21 0:42 / /mnt/with\\040space rw - cifs //server/share rw
33 21 0:43 / /mnt/ssh rw - fuse.sshfs me@server: rw
34 21 0:44 / /mnt/other rw - fuse.something x rw
35 21 0:45 / /over rw - nfs server:/over rw
36 21 0:46 / /over rw - tmpfs tmpfs rw
a line of some later kernel
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", None),
        ("/srv", None),
        ("/home", "nfs4"),
        ("/home/me/data", "nfs4"),
        ("/homes", None),
        ("/home/local", None),
        ("/home/local/x", None),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/ssh", "fuse.sshfs"),
        ("/mnt/other", None),
        ("/over", None),
    ],
)
def test_file_systems_of_networks_are_known(directory: str, kind: str | None) -> None:
    assert network_of(directory, MOUNTS) == kind


def test_on_a_network_a_store_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "network_of", lambda directory: "nfs4")
    with pytest.raises(OSError, match=r"network file system \(nfs4\).*memory.*one machine") as caught:
        SqliteStore(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTSUP, str(path))
    assert os.listdir(path.parent) == []


def test_here_nothing_is_refused(path: Path) -> None:
    assert checked_file(str(path)) == os.path.realpath(path)
    path.touch()
    assert checked_file(str(path)) == os.path.realpath(path)


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("", errno.ENOENT),
        (".", errno.EISDIR),
        ("directory", errno.EISDIR),
        ("directory/", errno.EISDIR),
        ("missing/store", errno.ENOENT),
        ("file/store", errno.ENOTDIR),
        ("pipe", errno.EINVAL),
        ("twice", errno.EMLINK),
    ],
)
def test_what_can_be_no_file_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("directory")
    os.mkfifo("pipe")
    Path("file").write_bytes(b"")
    Path("once").write_bytes(b"")
    os.link("once", "twice")
    before = sorted(os.listdir())
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its number is looked at)
        SqliteStore(place)
    assert (caught.value.errno, caught.value.filename) == (number, place)
    assert sorted(os.listdir()) == before


def test_a_link_leads_to_the_same_store(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with SqliteStore(link, EventManager()) as store, SqliteStore(path, EventManager()) as other:
        other.from_bytes("k", b"1")
        assert store.to_bytes("k") == b"1"
        names = ["link", "store", "store-shm", "store-wal", "store-writer"]
        assert sorted(os.listdir(path.parent)) == names


def test_a_damaged_schema(path: Path) -> None:
    with SqliteStore(path, EventManager()) as store:
        store.from_bytes("k", b"")
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(StoreFormatError, match="is damaged"):
        SqliteStore(path)


@pytest.fixture
def shared() -> Iterator[Path]:
    """The directory of a closed store, which every user may look into."""
    directory = Path(tempfile.mkdtemp())
    with SqliteStore(directory / "store", EventManager()) as store:
        store.from_bytes("k", b"1")
    yield directory
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("directory", "file", "message"),
    [
        (0o755, 0o666, "the directory is not readable and writable.*write-ahead log"),
        (0o777, 0o644, "the file is not readable and writable.*write-ahead log"),
        (0o777, 0o666, None),
    ],
)
def test_who_may_not_write(shared: Path, directory: int, file: int, message: str | None) -> None:
    path = shared / "store"
    os.chmod(path, file)
    os.chmod(shared / "store-writer", file)
    os.chmod(shared, directory)

    def use() -> None:
        if message is None:
            with SqliteStore(path, EventManager()) as store:
                store.from_bytes("k", b"2")
            return
        with pytest.raises(PermissionError, match=message) as caught:
            SqliteStore(path)
        assert caught.value.filename == str(path)

    assert in_child(use, user=65534) == "None"
    with SqliteStore(path, EventManager()) as store:
        assert store.to_bytes("k") == (b"1" if message else b"2")
