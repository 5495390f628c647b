"""The frameworks' own tests pass on our backends.

They are not copied here: dogpile.cache ships them, those of the others are in the source distributions of the
installed versions, which pip downloads once. ``tox -e backends`` runs this, ``backends-py312`` with Django 6;
elsewhere it is skipped, as it takes minutes and the network.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

SUITES = Path(__file__).parent / "suites"

#: Seconds that a download, or a suite, may take.
PATIENCE = 600

pytestmark = [
    pytest.mark.skipif(
        "LATCHSTORE_SUITES" not in os.environ,
        reason="the frameworks' own suites take minutes and the network: run tox -e backends",
    ),
    pytest.mark.timeout(2 * PATIENCE),
]

SourceOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory for source distributions, which is kept for the next run if there is a cache."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("sources") if cache is None else Path(cache.mkdir("sources"))


@pytest.fixture
def source_of(sources: Path) -> SourceOf:
    """Return a function that returns the unpacked source distribution of an installed version."""

    def source_of(distribution: str) -> Path:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{distribution} is not installed")
        folder = sources / f"{distribution}-{version}"
        if not any(folder.glob("*/PKG-INFO")):
            unpack(download(distribution, version, folder), folder)
        (unpacked,) = (path.parent for path in folder.glob("*/PKG-INFO"))
        return unpacked

    return source_of


def download(distribution: str, version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", distribution, "--dest", str(folder), f"{distribution}=={version}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or len(archives) != 1:
        pytest.skip(f"pip cannot download the source of {distribution} {version}: {result.stderr.strip()}")
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def run(*command: str, tests: Path = SUITES) -> str:
    """Run Python with a framework's tests and our suites on its path; return what it prints."""
    paths = [str(tests), str(SUITES), os.environ.get("PYTHONPATH", "")]
    # Some would insist on servers that they find in their own CI.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TOX_ENV_NAME")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    result = subprocess.run(
        [sys.executable, *command],
        cwd=tests,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    return result.stdout


def run_pytest(*arguments: str, tests: Path = SUITES) -> int:
    """Run pytest, without any configuration of ours; return how many tests have passed."""
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tests)]
    printed = run("-m", "pytest", *options, *arguments, tests=tests)
    summary = re.search(r"^(\d+) passed", printed, flags=re.MULTILINE)
    assert summary is not None, printed
    return int(summary[1])


def test_django(source_of: SourceOf) -> None:
    printed = run(str(SUITES / "django_suite.py"), tests=source_of("Django") / "tests")
    ran = re.search(r"^Ran (\d+) tests", printed, flags=re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) >= 50
    assert "skipped" not in printed


def test_dogpile() -> None:
    pytest.importorskip("dogpile.cache", reason="needs latchstore[dogpile]")
    assert run_pytest(str(SUITES / "dogpile_suite.py")) >= 80


def test_cachelib(source_of: SourceOf) -> None:
    pytest.importorskip("xprocess", reason="cachelib's tests need pytest-xprocess")
    tests = source_of("cachelib") / "tests"
    assert run_pytest(str(SUITES / "cachelib_suite.py"), tests=tests) >= 50


def test_flask_caching(source_of: SourceOf) -> None:
    pytest.importorskip("xprocess", reason="Flask-Caching's tests need pytest-xprocess")
    left_out = [
        # That SimpleCache holds one more than its threshold, how it holds it, and what it was told once.
        "test_purge",
        "test_values_are_stored_in_the_configured_format",
        "test_deprecated_ignore_errors",
        # Other caches.
        "Redis",
        "Memcache",
    ]
    selection = " and ".join(f"not {name}" for name in left_out)
    tests = source_of("Flask-Caching") / "tests"
    assert run_pytest("-p", "flask_caching_suite", "-k", selection, str(tests), tests=tests) >= 190
