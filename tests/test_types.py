"""The types: a page of user code runs and passes both checkers, and nearly all that is public has a type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import latchstore
from latchstore import (
    Cache,
    Codec,
    DeadLetter,
    DictMemoryStore,
    EventManager,
    Job,
    StoreMapping,
    StoreView,
    WorkQueue,
)
from tests import typing_page
from tests.typing_page import Shop, User, UserCodec

SOURCE = str(Path(latchstore.__file__).parents[1])

#: What part of the public names must have a type that is known; the rest are of frameworks without types.
LEAST_COMPLETE = 0.98

#: Each takes the checkers a quarter of a minute.
needs_checkers = pytest.mark.skipif("LATCHSTORE_CHECKERS" not in os.environ, reason="see tox -e types")

PARTS: list[Callable[[], None]] = [
    typing_page.stores,
    typing_page.transactions,
    typing_page.snapshots,
    typing_page.watches,
    typing_page.events,
    typing_page.errors,
    typing_page.mappings,
    typing_page.mappings_with_codecs,
    typing_page.untyped_caches,
    typing_page.typed_caches,
    typing_page.counters,
    typing_page.caches_with_codecs,
    typing_page.loads,
    typing_page.loads_by_a_pool,
    typing_page.work_queues,
    typing_page.functions,
    lambda: typing_page.methods(Shop("here")),
    lambda: typing_page.class_and_static_methods(Shop("here")),
]


@pytest.mark.parametrize("part", PARTS)
def test_the_page_runs(part: Callable[[], None]) -> None:
    part()


class TestAtRunTime:
    """Types of values say nothing when the program runs, and are no hindrance."""

    @pytest.mark.parametrize("generic", [Cache, Codec, DeadLetter, Job, StoreMapping, StoreView, WorkQueue])
    def test_one_type_is_taken(self, generic: Any) -> None:
        assert generic[User].__origin__ is generic
        assert generic[User].__args__ == (User,)
        with pytest.raises(TypeError, match="Too many arguments"):
            generic[str, User]

    def test_what_it_makes_is_the_same(self) -> None:
        with Cache[User](max_entries=1) as cache:
            assert type(cache) is Cache
            assert cache.max_entries == 1
        mapping = StoreMapping[User](DictMemoryStore(EventManager()), codec=UserCodec())
        assert type(mapping) is StoreMapping
        assert isinstance(mapping.codec, Codec)

    def test_a_subclass_may_say_it(self) -> None:
        class Users(Cache[User]):
            pass

        with Users(max_entries=1) as users:
            users["Ann"] = User("Ann")
            assert users["Ann"] == User("Ann")


def checked(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a checker, which finds the package that is tested."""
    path = {"PYTHONPATH": SOURCE}
    if Path(SOURCE).name != "site-packages":  # which mypy searches by itself, and refuses to be told of
        path["MYPYPATH"] = SOURCE
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_checkers
@pytest.mark.parametrize(
    "checker",
    [
        ("mypy", "--strict", "--config-file=", "--cache-dir=cache", "page.py"),
        ("pyright", "--warnings"),
    ],
    ids=lambda checker: checker[0],
)
@pytest.mark.timeout(240)
def test_the_page_is_checked(checker: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip(checker[0])
    shutil.copy(typing_page.__file__, tmp_path / "page.py")
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "include": ["page.py"],
                "extraPaths": [SOURCE],
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": False,
                "reportUnnecessaryTypeIgnoreComment": True,
            }
        ),
        encoding="utf-8",
    )
    done = checked(tmp_path, *checker)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_checkers
@pytest.mark.timeout(240)
def test_public_names_have_types(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    done = checked(tmp_path, "pyright", "--verifytypes", "latchstore", "--ignoreexternal", "--outputjson")
    report = json.loads(done.stdout)["typeCompleteness"]
    assert Path(report["packageRootDirectory"]) == Path(SOURCE, "latchstore")
    # Those without a type that is known, and why.
    lacking = [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in report["symbols"]
        if symbol["isExported"]
        for diagnostic in symbol["diagnostics"]
        if diagnostic["severity"] == "error"
    ]
    assert report["completenessScore"] >= LEAST_COMPLETE, "\n".join(lacking)
