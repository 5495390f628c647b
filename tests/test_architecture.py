"""The house: imports go down, every public method has its contract, and importing loads no extras."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import latchstore
from latchstore import AbstractStore, BaseEventManager, DictMemoryStore, Value
from latchstore.programs import PROGRAMS

PACKAGE = Path(latchstore.__file__).parent
TESTS = Path(__file__).parent

#: Lines of a file, and public and private methods of a class, at the most.
MOST_LINES = 500
MOST_METHODS = 30

#: The contract has as many methods as the specification.
ABSTRACT = ("AbstractReadOnlyStore", "AbstractStore")

#: What nobody pays for who only wants the store.
EXTRAS = (
    "rich",
    "tqdm",
    "hypothesis",
    "encore",
    "sqlite3",
    "redis",
    "hiredis",
    "msgpack",
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
    "redis",
    "hiredis",
    "msgpack",
    "typing_extensions",
)


def modules() -> list[str]:
    """Return the names of all modules of the package, but for its own ``__init__``."""
    names = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }
    return sorted(names - {"__init__"})


MODULES = modules()

#: The packages below the package.
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def source_of(module: str) -> str:
    """Return the text of a module, or of the ``__init__`` of a package."""
    path = PACKAGE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


@functools.cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(source_of(module))


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """Let go of the trees at the end: other tests call the collector, which would look through them."""
    yield
    tree_of.cache_clear()


def module_of(name: str) -> str:
    """Return the module of ours that an imported name is, or is in."""
    parts = name.split(".")[1:]
    nested = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((module for module in nested if module in MODULES), parts[0])


def imports_of(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Find the imports of a module, wherever they stand, but for those that only type checkers follow."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        yield from imports_of(node)


def imported_modules(tree: ast.AST) -> set[str]:
    """Return what a module imports of this package."""
    imported: set[str] = set()
    for node in imports_of(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        imported.update(module_of(name) for name in names if name.startswith("latchstore."))
        assert "latchstore" not in names, "import the module that is meant"
    # The version is the one name that the package itself may lend.
    return imported - {"__version__"}


def room_of(module: str) -> str:
    """Return the room of a module: the folder that it is in, or itself."""
    return module.partition(".")[0]


def cycle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """Return a way from a node of a graph back to itself, or None."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str] | None:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return None
        for other in sorted(graph.get(node, ())):
            found = search(other, [*way, node])
            if found is not None:
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := search(node, []))), None)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


#: Private names that another room defines: `get` makes a value without a call, as it is a hot path; what the
#: harness uses are attributes of threads, which only have the same name.
SAME_NAMES = {
    ("engine.entry_reader", "_stream"),
    ("stress.cooperative", "_started"),
    ("stress.cooperative", "_task"),
}

#: What only a test can ask for by a private name: encore's own tests reset the default by this one.
GIVEN_NAMES = {"_event_manager"}

#: Tests that use private names of ours yet. A file that uses none must not be named here.
STILL_PRIVATE = {
    "tests/backends/test_django.py",
    "tests/backends/test_dogpile.py",
}

#: Functions that take the name of an attribute.
BY_NAME = {"setattr", "getattr", "hasattr", "delattr", "object"}


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Find the names that a module defines, those of its objects' attributes included."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            yield node.attr


def is_own(node: ast.AST) -> bool:
    """Tell whether an expression is an object in a method of its class, which may use what it inherits."""
    if isinstance(node, ast.Call):
        return not node.args and isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def called_name(node: ast.Call) -> str:
    """Return the name of what is called, without that of the object it belongs to."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def private_names() -> set[str]:
    """Return the private names that modules of ours define."""
    return {name for module in MODULES for name in defined_names(tree_of(module)) if is_private(name)}


def used_names(tree: ast.AST) -> Iterator[str]:
    """Find the names of other objects' attributes that a module uses, and those that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in BY_NAME:
            for each in node.args:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value.rpartition(".")[2]


def private_uses(source: str, ours: set[str]) -> set[str]:
    """Return the private names among `ours` that a test uses and does not define itself."""
    named = ours & set(re.findall(r"\b_\w+", source)) - GIVEN_NAMES
    if not named:
        return named
    tree = ast.parse(source)
    return named & set(used_names(tree)) - set(defined_names(tree))


def graph_of(names: Iterable[str]) -> dict[str, set[str]]:
    """Return which module imports which."""
    return {name: imported_modules(tree_of(name)) - {name} for name in names}


class TestRooms:
    def test_rooms_import_downward_only(self) -> None:
        rooms: dict[str, set[str]] = {}
        for module, imported in graph_of(MODULES).items():
            room = room_of(module)
            rooms.setdefault(room, set()).update({room_of(each) for each in imported} - {room})
        assert cycle_in(rooms) is None

    def test_modules_of_a_room_import_downward_only(self) -> None:
        # A package's ``__init__`` stands for those that it lends names of.
        assert cycle_in(graph_of(MODULES)) is None

    def test_what_a_cycle_is(self) -> None:
        assert cycle_in({"a": {"b"}, "b": {"c"}, "c": set()}) is None
        assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]

    @pytest.mark.parametrize(
        ("source", "imported"),
        [
            ("from latchstore.contract.values import Entry", {"contract.values"}),
            ("import latchstore.contract.values", {"contract.values"}),
            ("from latchstore.contract import values", {"contract.values"}),
            ("from latchstore.delivery import watch, run", {"delivery.watch", "delivery"}),
            ("from latchstore.stress.workloads.action import POOL", {"stress.workloads.action"}),
            ("def f():\n    from latchstore.contract.values import Entry, Value", {"contract.values"}),
            ("if TYPE_CHECKING:\n    from latchstore.contract.codec import Codec", set()),
            ("import os, re\nfrom collections import abc", set()),
        ],
    )
    def test_imports_are_found_wherever_they_are(self, source: str, imported: set[str]) -> None:
        assert imported_modules(ast.parse(source)) == imported

    @pytest.mark.parametrize("room", ROOMS)
    def test_rooms_say_what_they_are_for(self, room: str) -> None:
        said = " ".join((ast.get_docstring(tree_of(room)) or "").split())
        assert "import" in said
        assert "Begin with" in said

    def test_files_and_classes_are_small(self) -> None:
        large: set[str] = set()
        for module in MODULES:
            classes = {
                node.name: sum(isinstance(each, ast.FunctionDef) for each in node.body)
                for node in ast.walk(tree_of(module))
                if isinstance(node, ast.ClassDef)
            }
            large |= {name for name, count in classes.items() if count > MOST_METHODS}
            if not classes.keys() & set(ABSTRACT) and len(source_of(module).splitlines()) > MOST_LINES:
                large.add(module)
        assert large <= set(ABSTRACT)

    def test_private_names_are_those_of_the_same_room(self) -> None:
        # What no room defines is of the standard library, or of a framework that a backend is for.
        ours = private_names()
        own: dict[str, set[str]] = {}
        for module in MODULES:
            own.setdefault(room_of(module), set()).update(defined_names(tree_of(module)))
        of_others = {room: ours - names for room, names in own.items()}
        foreign = {
            (module, node.attr)
            for module in MODULES
            for node in ast.walk(tree_of(module))
            if isinstance(node, ast.Attribute) and node.attr in of_others[room_of(module)]
        }
        assert foreign <= SAME_NAMES

    def test_tests_use_no_private_names(self) -> None:
        """They ask by public means, by a `check()`, or by `inspection` of the engine or the cache."""
        ours = private_names()
        found = {
            path.relative_to(TESTS.parent).as_posix(): uses
            for path in TESTS.rglob("*.py")
            if (uses := private_uses(path.read_text(encoding="utf-8"), ours))
        }
        assert found.keys() == STILL_PRIVATE, {name: found.get(name) for name in found.keys() ^ STILL_PRIVATE}

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("store._table.check()", {"_table"}),
            ("from latchstore.engine.memory import _table", {"_table"}),
            ("monkeypatch.setattr(store, '_table', None)", {"_table"}),
            ("monkeypatch.setattr('latchstore.engine.memory._table', None)", {"_table"}),
            ("class Broken(Store):\n  def f(self): return self._table", set()),
            ("class Own:\n  _table = 1\nOwn()._table", set()),
            ("sys._getframe(), store.table, '_table'", set()),
        ],
    )
    def test_what_a_use_of_a_private_name_is(self, source: str, found: set[str]) -> None:
        assert private_uses(source, {"_table"}) == found

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
                assert ast.unparse(statement.test) == "_typing.TYPE_CHECKING"
            elif isinstance(statement, ast.Import):
                assert all(is_private(str(alias.asname)) for alias in statement.names)
            else:
                assert isinstance(statement, ast.ImportFrom), ast.unparse(statement)

    def test_caches_and_codecs_are_loaded_when_they_are_used(self) -> None:
        code = (
            "import sys, logging; "  # which takes pathlib along from 3.15 on
            "late = {'latchstore.cache', 'latchstore.contract.codec', "
            "'pickle', 'json', 'pathlib', 'readerwriterlock'} - set(sys.modules); "
            "import latchstore; "
            "assert not late & set(sys.modules), late & set(sys.modules); "
            "from latchstore import Cache; assert Cache().stats()['entries'] == 0; "
            "store = latchstore.DictMemoryStore(); assert 'readerwriterlock' not in sys.modules; "
            "assert type(store.mapping()) is latchstore.StoreMapping; "
            "assert 'Cache' in dir(latchstore); latchstore.nothing"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stderr.endswith("AttributeError: module 'latchstore' has no attribute 'nothing'\n")


class TestPublicNames:
    @pytest.mark.parametrize("module", ["", ".contract.events", ".delivery.event_manager"])
    def test_all_names_exist(self, module: str) -> None:
        namespace = sys.modules[f"latchstore{module}"]
        missing = [name for name in namespace.__all__ if not hasattr(namespace, name)]
        assert not missing

    def test_all_names_and_help_need_no_extra(self) -> None:
        program = (
            "import sys; sys.modules.update(dict.fromkeys(['redis', 'hiredis', 'msgpack'])); "
            "from latchstore import *; import latchstore, pydoc; "
            "print('RedisStore' in dir(latchstore), 'WorkQueue' in pydoc.render_doc(latchstore))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "False True\n"

    def test_all_is_sorted_and_without_doubles(self) -> None:
        assert latchstore.__all__ == sorted(set(latchstore.__all__))

    def test_all_that_is_imported_is_public(self) -> None:
        modules_of_ours = {*map(room_of, MODULES), "annotations"}
        # Names that are none are pytest's, which rewrites the assertions of a package with a plugin.
        names = {name for name in dir(latchstore) if name.isidentifier() and not name.startswith("_")}
        public = {name for name in latchstore.__all__ if name != "__version__"}
        assert names - modules_of_ours - {"RedisStore"} == public

    @pytest.mark.parametrize("cls", [AbstractStore, DictMemoryStore, BaseEventManager, Value])
    def test_public_methods_have_a_docstring(self, cls: type) -> None:
        public = {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_")}
        silent = [
            name
            for name, member in public.items()
            if (callable(member) or isinstance(member, property)) and not inspect.getdoc(member)
        ]
        assert public
        assert not silent

    def test_modules_have_a_docstring(self) -> None:
        assert [module for module in MODULES if not ast.get_docstring(tree_of(module))] == []

    def test_the_package_is_typed(self) -> None:
        assert (PACKAGE / "py.typed").is_file()


def test_the_store_loads_no_program() -> None:
    program = (
        "import sys; from latchstore import *; Cache(max_entries=1)['k'] = 1; "
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('latchstore.')})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cache" in done.stdout.split()
    assert PROGRAMS.isdisjoint(done.stdout.split())


def test_programs_are_rooms() -> None:
    assert PROGRAMS - {"__main__", "printable"} <= set(ROOMS)


def test_importing_loads_no_extras() -> None:
    # That is what sqlite3 is loaded for.
    program = (
        "import sys, latchstore as package; names = set(package.__all__) - {'SqliteStore'}; "
        f"[getattr(package, name) for name in names]; print(*[m for m in {EXTRAS} if m in sys.modules])"
    )
    # -S would hide the package, but without it a .pth file of some other package may import a lot.
    before = f"import sys; print(*[m for m in {EXTRAS} if m in sys.modules])"
    loaded, preloaded = (
        subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        for text in (program, before)
    )
    assert set(loaded) <= set(preloaded)
