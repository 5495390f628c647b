"""Where requests come from: files of any kind, standard input, laws."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from latchstore.cache_simulation.traces import SimulationError, Trace


def trace(
    name: object, keys: int = 100, requests: int | None = None, alpha: float = 1.0, seed: int = 0
) -> Trace:
    return Trace(str(name), keys, requests, alpha, seed)


def keys_of(name: object, requests: int | None = None) -> list[str]:
    return list(trace(name, requests=requests).read())


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"a\nb\na\n", ["a", "b", "a"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\n\na\n\n", ["a"]),
        (b"", []),
        (b" a key \n", [" a key "]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("grün\n".encode(), ["grün"]),
        (b"caf\xe9\n\x00\n", ["caf\udce9", "\x00"]),
    ],
)
def test_a_file_has_a_key_a_line(data: bytes, keys: list[str], packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "trace"  # what it is called says nothing of what it is
    path.write_bytes(gzip.compress(data) if packed else data)
    assert keys_of(path) == keys


def test_only_the_beginning_of_a_file_is_read_if_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    # Cut off where the gzip goes on: whoever reads all of it is told.
    path.write_bytes(gzip.compress(os.urandom(50_000).hex(sep="\n").encode())[:20_000])
    assert len(keys_of(path, requests=7)) == 7
    with pytest.raises(SimulationError, match="cannot be read: Compressed file ended"):
        keys_of(path)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_standard_input(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"a\nb\n"
    buffer = io.BytesIO(gzip.compress(data) if packed else data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    assert keys_of("-") == ["a", "b"]
    assert not buffer.closed


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(gzip.compress(b"a\n")[:-8] + b"\0" * 8)
    (tmp_path / "no-gzip").write_bytes(b"\x1f\x8bnothing")
    for name, problem in (
        ("missing", "No such file"),
        ("", "directory|denied"),  # Windows says that it is denied
        ("damaged", "CRC check failed"),
        ("no-gzip", "."),
    ):
        with pytest.raises(SimulationError, match=f"^trace '.*': cannot be read: .*({problem})") as caught:
            keys_of(tmp_path / name)
        assert "\n" not in str(caught.value)


class TestLaws:
    def test_a_loop(self) -> None:
        assert keys_of("loop:3", requests=7) == ["0", "1", "2", "0", "1", "2", "0"]
        assert set(keys_of("loop", requests=150)) == {str(number) for number in range(100)}

    def test_zipf(self) -> None:
        drawn = Counter(keys_of("zipf:1", requests=50_000))
        assert len(drawn) == 100
        # The first comes twice as often as the second.
        assert drawn["0"] / drawn["1"] == pytest.approx(2, rel=0.1)
        assert min(Counter(keys_of("zipf:0", requests=50_000)).values()) > 350

    def test_the_exponent_is_that_of_the_name_or_else_that_of_the_option(self) -> None:
        def requested(name: str, alpha: float) -> list[str]:
            return list(trace(name, requests=1_000, alpha=alpha).read())

        assert requested("zipf", 0.7) == requested("zipf:0.7", 1.2) != requested("zipf", 1.2)
        assert requested("scan", 0.7) == requested("scan:0.7", 1.2) != requested("scan", 1.2)

    def test_a_scan_reads_all_keys_between_requests_of_the_law(self) -> None:
        requested = trace("scan:0.9", keys=200, requests=30 * 20).read()
        blocks = [list(itertools.islice(requested, 30)) for _ in range(20)]
        scanned = [key for block in blocks for key in block[20:]]
        assert sorted(scanned, key=int) == [str(number) for number in range(200)]
        assert scanned != sorted(scanned, key=int)
        law = Counter(key for block in blocks for key in block[:20])
        assert law["0"] > 400 / 20

    @pytest.mark.parametrize("name", ["zipf:0.9", "scan:0.9"])
    def test_the_same_seed_gives_the_same_requests(self, name: str) -> None:
        first, again, other = (list(trace(name, requests=500, seed=seed).read()) for seed in (1, 1, 2))
        assert first == again != other

    def test_a_million_requests_are_made_if_nothing_else_is_said(self) -> None:
        assert sum(1 for _ in trace("loop").read()) == 1_000_000

    @pytest.mark.parametrize("name", ["zipf", "scan", "loop:1"])
    def test_one_key_is_enough(self, name: str) -> None:
        assert list(trace(name, keys=1, requests=5).read()) == ["0"] * 5

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("zipf:", "ALPHA must be a number"),
            ("zipf:much", "ALPHA must be a number"),
            ("zipf:-1", "ALPHA must be a number of at least 0"),
            ("scan:nan", "ALPHA must be a number"),
            ("scan:inf", "ALPHA must be a number"),
            ("loop:", "KEYS must be a whole number"),
            ("loop:1.5", "KEYS must be a whole number"),
            ("loop:0", "KEYS must be a whole number of at least 1"),
        ],
    )
    def test_what_is_no_law(self, name: str, problem: str) -> None:
        with pytest.raises(SimulationError, match=f"^trace '{name}': {problem}"):
            trace(name)

    def test_a_file_may_be_called_like_a_law(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "zipf").write_text("a\n")
        monkeypatch.chdir(tmp_path)
        assert keys_of("./zipf") == ["a"]
