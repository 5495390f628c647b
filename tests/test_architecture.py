"""The house: imports go down, every public method has its contract, and importing loads no extras."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import latchstore
from latchstore import AbstractStore, BaseEventManager, DictMemoryStore, Value
from latchstore.transaction import Committer

PACKAGE = Path(latchstore.__file__).parent

#: Each module imports from lower floors only.
FLOORS = {
    "errors": 0,
    "arguments": 0,
    "events": 0,
    "values": 1,
    "event_manager": 2,
    "dispatcher": 2,
    "locking": 1,
    "glob_pattern": 1,
    "contains": 0,
    "zipf": 0,
    "printable": 0,
    "metadata_index": 2,
    "commit_events": 3,
    "store": 3,
    "preimages": 2,
    "change_feed": 2,
    "table": 3,
    "entry_store": 4,
    "progress": 4,
    "saving": 2,
    "snapshot": 5,
    "watch": 5,
    "batch": 6,
    "transaction": 7,
    "attempts": 8,
    "memory": 9,
    "codec": 1,
    "mapping": 2,
    "cache.policies": 2,
    "cache.ledger": 3,
    "cache.counting": 2,
    "cache.loading": 2,
    "cache.memoizing": 2,
    "cache.options": 4,
    "cache.keeper": 5,
    "cache.shared": 10,
    "cache": 11,
    "cache_simulation": 0,
    "cache_simulation.traces": 1,
    "cache_simulation.recording": 1,
    "cache_simulation.contestants": 12,
    "cache_simulation.simulation": 13,
    "cache_simulation.report": 14,
    "cache_simulation.plot": 15,
    "cache_simulation.command": 16,
    "metrics": 11,
    "backends.storing": 11,
    "backends.cachelib": 12,
    "backends.django": 12,
    "backends.dogpile": 12,
    "backends.flask_caching": 13,
    "backends": 14,
    "demo.files": 10,
    "demo.pool": 10,
    "demo.checks": 11,
    "demo.disk": 12,
    "demo.report": 12,
    "demo.screen": 13,
    "demo.work": 14,
    "demo": 15,
    "stress": 10,
    "stress.history": 10,
    "stress.scope": 10,
    "stress.substitution": 10,
    "stress.faults": 10,
    "stress.verdict": 11,
    "stress.figures": 11,
    "stress.result": 12,
    "stress.event_checks": 12,
    "stress.linearizability": 12,
    "stress.models": 12,
    "stress.list_append": 12,
    "stress.registers": 12,
    "stress.revision_order": 13,
    "stress.lock_order": 13,
    "stress.junit": 13,
    "stress.workloads.action": 13,
    "stress.workloads.stages": 13,
    "stress.scheduler": 14,
    "stress.recording": 14,
    "stress.report": 14,
    "stress.workloads.groups": 14,
    "stress.cooperative": 15,
    "stress.strategies": 15,
    "stress.workloads.bank": 15,
    "stress.workloads.compare_and_set": 15,
    "stress.workloads.events": 15,
    "stress.workloads.list_append": 15,
    "stress.workloads.registers": 15,
    "stress.workloads.scans": 15,
    "stress.workloads.several_keys": 15,
    "stress.workloads.transactions": 15,
    "stress.workloads.ycsb": 15,
    "stress.workloads.snapshots": 16,
    "stress.workloads": 17,
    "stress.controlled": 18,
    "stress.native": 18,
    "stress.search": 19,
    "stress.campaign": 20,
    "stress.words": 21,
    "stress.check": 22,
    "stress.command": 22,
    "stress.recheck": 23,
    "stress.pytest_plugin": 23,
    "__main__": 24,
}

#: What nobody pays for who only wants the store.
EXTRAS = (
    "rich",
    "tqdm",
    "hypothesis",
    "encore",
    "sqlite3",
    "asyncio",
    "matplotlib",
    "cachetools",
    "theine",
    "prometheus_client",
    "django",
    "dogpile",
    "cachelib",
    "flask",
    "flask_caching",
)


def modules() -> list[str]:
    """Return the names of all modules of the package, but for ``__init__``."""
    names = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }
    return sorted(names - {"__init__"})


def source_of(module: str) -> str:
    """Return the text of a module, or of the ``__init__`` of a package."""
    path = PACKAGE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


def module_of(name: str) -> str:
    """Return the module of ours that an imported name is, or is in."""
    parts = name.split(".")[1:]
    nested = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((module for module in nested if module in FLOORS), parts[0])


def imported_modules(source: str) -> set[str]:
    """Return what a module imports of this package, wherever in the module that happens."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        imported.update(module_of(name) for name in names if name.startswith("latchstore."))
        assert "latchstore" not in names, "import the module that is meant"
    return imported


class TestFloors:
    def test_every_module_has_a_floor(self) -> None:
        assert set(modules()) <= set(FLOORS)

    @pytest.mark.parametrize("module", modules())
    def test_imports_go_down(self, module: str) -> None:
        imported = imported_modules(source_of(module))
        # The version is the one name that the package itself may lend.
        not_below = {
            name for name in imported - {"__version__"} if FLOORS.get(name, len(FLOORS)) >= FLOORS[module]
        }
        assert not not_below, f"{module} must not import {not_below}"

    @pytest.mark.parametrize(
        ("source", "imported"),
        [
            ("from latchstore.values import Entry", {"values"}),
            ("import latchstore.values", {"values"}),
            ("from latchstore import values", {"values"}),
            ("from latchstore.demo.files import File", {"demo.files"}),
            ("from latchstore.demo import files, run", {"demo.files", "demo"}),
            ("from latchstore.stress.workloads.action import POOL", {"stress.workloads.action"}),
            ("def f():\n    from latchstore.values import Entry, Value", {"values"}),
            ("import os, re\nfrom collections import abc", set()),
        ],
    )
    def test_imports_are_found_wherever_they_are(self, source: str, imported: set[str]) -> None:
        assert imported_modules(source) == imported

    def test_init_only_names_what_is_public(self) -> None:
        tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
        docstring, *statements = tree.body
        assert isinstance(docstring, ast.Expr)
        for statement in statements:
            if isinstance(statement, ast.Assign):
                targets = [ast.unparse(target) for target in statement.targets]
                assert targets in (["__all__"], ["__version__"], ["_LOADED_WHEN_USED"])
            elif isinstance(statement, ast.FunctionDef):
                assert statement.name in ("__getattr__", "__dir__")
            elif isinstance(statement, ast.If):
                assert ast.unparse(statement.test) == "TYPE_CHECKING"
            else:
                assert isinstance(statement, ast.ImportFrom), ast.unparse(statement)

    def test_caches_and_codecs_are_loaded_when_they_are_used(self) -> None:
        code = (
            "import sys, latchstore; "
            "late = {'latchstore.cache', 'latchstore.codec', "
            "'pickle', 'json', 'pathlib', 'readerwriterlock'}; "
            "assert not late & set(sys.modules); "
            "from latchstore import Cache; assert Cache().stats()['entries'] == 0; "
            "store = latchstore.DictMemoryStore(); assert 'readerwriterlock' not in sys.modules; "
            "assert type(store.mapping()) is latchstore.StoreMapping; "
            "assert 'Cache' in dir(latchstore); latchstore.nothing"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stderr.endswith("AttributeError: module 'latchstore' has no attribute 'nothing'\n")


class TestPublicNames:
    @pytest.mark.parametrize("module", ["latchstore", "latchstore.events", "latchstore.event_manager"])
    def test_all_names_exist(self, module: str) -> None:
        namespace = sys.modules[module]
        missing = [name for name in namespace.__all__ if not hasattr(namespace, name)]
        assert not missing

    def test_all_is_sorted_and_without_doubles(self) -> None:
        assert latchstore.__all__ == sorted(set(latchstore.__all__))

    def test_all_that_is_imported_is_public(self) -> None:
        modules_of_ours = {*FLOORS, "annotations"}
        # Names that are none are pytest's, which rewrites the assertions of a package with a plugin.
        names = {name for name in dir(latchstore) if name.isidentifier() and not name.startswith("_")}
        names -= {"Any", "TYPE_CHECKING", "import_module"}
        assert names - modules_of_ours == {name for name in latchstore.__all__ if name != "__version__"}

    @pytest.mark.parametrize("cls", [AbstractStore, DictMemoryStore, BaseEventManager, Value])
    def test_public_methods_have_a_docstring(self, cls: type) -> None:
        public = {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_")}
        # What transactions ask of a store is documented in their own protocol.
        documented = {name for name, member in vars(Committer).items() if inspect.getdoc(member)}
        silent = [
            name
            for name, member in public.items()
            if (callable(member) or isinstance(member, property))
            and not inspect.getdoc(member)
            and name not in documented
        ]
        assert public
        assert not silent

    @pytest.mark.parametrize("module", modules())
    def test_modules_have_a_docstring(self, module: str) -> None:
        assert ast.get_docstring(ast.parse(source_of(module)))

    def test_the_package_is_typed(self) -> None:
        assert (PACKAGE / "py.typed").is_file()


def test_importing_loads_no_extras() -> None:
    program = f"import sys, latchstore; print(*[m for m in {EXTRAS} if m in sys.modules])"
    # -S would hide the package, but without it a .pth file of some other package may import a lot.
    before = f"import sys; print(*[m for m in {EXTRAS} if m in sys.modules])"
    loaded, preloaded = (
        subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        for text in (program, before)
    )
    assert set(loaded) <= set(preloaded)
