"""Histories that others have recorded, whose verdicts are published: all have to be the same here.

They are not a part of the project. The environment variable LATCHSTORE_HISTORIES names a folder that has
any of

- ``porcupine/verdicts.tsv``, lines of a file's name, a tab and "linearizable" or "not linearizable", and the
  files in ``porcupine/test_data/jepsen``: logs of a register with compare-and-set;
- ``porcupine/test_data/kv/*.txt``: key-value stores; the names end with ``-ok`` or ``-bad``;
- ``knossos/cas-register/good`` and ``bad``, ``*.edn``: registers with compare-and-set.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latchstore.stress.check_command import check_file

_FOLDER = os.environ.get("LATCHSTORE_HISTORIES", "")


def _etcd() -> list[tuple[Path, str, str]]:
    folder = Path(_FOLDER, "porcupine")
    table = folder / "verdicts.tsv"
    lines = table.read_text(encoding="utf-8").splitlines() if _FOLDER and table.exists() else []
    return [
        (folder / "test_data" / "jepsen" / name, "cas", "valid" if verdict == "linearizable" else "invalid")
        for name, _, verdict in (line.partition("\t") for line in lines)
    ]


def _key_value() -> list[tuple[Path, str, str]]:
    files = sorted(Path(_FOLDER, "porcupine", "test_data", "kv").glob("*.txt")) if _FOLDER else []
    return [(file, "kv", "valid" if file.stem.endswith("-ok") else "invalid") for file in files]


def _knossos() -> list[tuple[Path, str, str]]:
    folder = Path(_FOLDER, "knossos", "cas-register")
    return [
        (file, "cas", "valid" if verdict == "good" else "invalid")
        for verdict in ("good", "bad")
        for file in (sorted((folder / verdict).glob("*.edn")) if _FOLDER else [])
    ]


_HISTORIES = [*_etcd(), *_key_value(), *_knossos()]


@pytest.mark.skipif(not _HISTORIES, reason="LATCHSTORE_HISTORIES names no folder with histories")
@pytest.mark.parametrize(
    ("file", "model", "published"), _HISTORIES, ids=[file.name for file, _, _ in _HISTORIES]
)
def test_the_verdict_is_the_published_one(file: Path, model: str, published: str) -> None:
    assert check_file(str(file), model).answer == published
