"""The command line: what it says of itself, and that it imports no more than it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import latchstore
from latchstore.__main__ import main
from latchstore.programs import COMMANDS

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"latchstore {latchstore.__version__}\n"


def test_help_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for name, (_, summary) in COMMANDS.items():
        assert name in out
        assert summary in out


def test_no_command_is_an_error_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: latchstore ")
    assert "demo" in err


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["--frobnicate"], ["demo", "--frobnicate"], ["--vers"]]
)
def test_unknown_words_are_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: latchstore" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: latchstore {name} ")


@pytest.mark.parametrize(
    "words",
    [
        ["stress", "--workload", "registers", "--ops", "50"],
        ["inspect", "latchstore:DictMemoryStore", "--json"],
        ["cache-sim", "loop:9", "--policies", "lru", "--requests", "99"],
    ],
    ids=["stress", "inspect", "cache-sim"],
)
def test_a_closed_output_is_no_error_of_ours(words: list[str]) -> None:
    """As of ``latchstore stress | head -1``: no traceback, and not the exit code of a violation."""
    command = [sys.executable, "-m", "latchstore", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_imported_only_when_it_is_used(name: str) -> None:
    module = COMMANDS[name][0]
    program = (
        "import sys\n"
        "from latchstore.__main__ import main\n"
        "main([])\n"
        f"assert {module!r} not in sys.modules\n"
        "try:\n"
        f"    main([{name!r}, '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        f"assert {module!r} in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_latchstore() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latchstore", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"latchstore {latchstore.__version__}\n", "")


def test_python_m_latchstore_hands_on_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-m", "latchstore"], capture_output=True, text=True, check=False)
    assert done.returncode == 2


def test_the_installed_command_is_the_same() -> None:
    scripts = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["latchstore"].partition(":")
    assert getattr(import_module(module), function) is main
