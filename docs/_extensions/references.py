"""References of docstrings: found by what they name, not by the module in which it is written.

`Name` in a docstring is an object of the package, an attribute or a parameter. Objects link to where the
reference has them, methods of a subclass to the class that documents them. Parameters, and types that are not
public (type variables, classes of the standard library), have no link. What cannot be found is an error.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sphinx.domains.python import PyObject, PythonDomain
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from docutils.nodes import Element, reference
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.builders import Builder
    from sphinx.environment import BuildEnvironment

#: Of which the types of parameters are made, beside names of classes.
WORDS = frozenset(
    {"and", "bytes-like", "callable", "collection", "iterable", "mapping", "object", "of", "optional", "or"}
    | {"pair", "sequence", "strategy", "stream", "to"}
)

VARIABLES = re.compile(r"^ *(\w+(?:, \w+)*) : ", re.MULTILINE)


def looked_up(name: str, scope: object) -> Any:
    """Return what a dotted name is in a class or a module; None if it is nothing."""
    for part in name.split("."):
        if isinstance(scope, ModuleType) and not hasattr(scope, part):
            try:
                import_module(f"{scope.__name__}.{part}")
            except ImportError:
                return None
        scope = getattr(scope, part, None)
    return scope


@functools.cache
def imported(name: str) -> Any:
    """Return what a full name is of; None if of nothing."""
    module, _, rest = name.partition(".")
    try:
        scope = import_module(module)
    except ImportError:
        return None
    return looked_up(rest, scope) if rest else scope


def variables(thing: Any) -> Iterator[str]:
    """Find the parameters and attributes of a class, those of its methods, or those of a function."""
    for each in inspect.getmro(thing) if inspect.isclass(thing) else [thing]:
        for names in VARIABLES.findall(each.__doc__ or ""):
            yield from names.split(", ")
        if inspect.isclass(each):
            yield from inspect.get_annotations(each)
            for member in each.__dict__.values():
                if callable(member) and not inspect.isclass(member):
                    yield from variables(member)
        elif inspect.isfunction(each):
            yield from inspect.signature(each).parameters


def is_builtin(name: str) -> bool:
    """Tell whether it is the name of a builtin class."""
    return inspect.isclass(getattr(builtins, name, None))


class Domain(PythonDomain):
    """In which ``bytes`` or ``set``, where a type is expected, is that type and no property or method."""

    def resolve_xref(
        self,
        env: BuildEnvironment,
        fromdocname: str,
        builder: Builder,
        type: str,
        target: str,
        node: pending_xref,
        contnode: Element,
    ) -> reference | None:
        """Make a link of a reference; None if it has none."""
        if type == "class" and is_builtin(target):
            return None
        return super().resolve_xref(env, fromdocname, builder, type, target, node, contnode)


class Reference:
    """A reference of a docstring that Sphinx has not found."""

    def __init__(self, domain: PythonDomain, node: pending_xref) -> None:
        self._domain = domain
        self._target: str = node["reftarget"]
        self._in_text = node["reftype"] == "obj"
        self._class = imported(f"{node['py:module']}.{node['py:class']}") if node.get("py:class") else None
        own = sys.modules.get(getattr(self._class, "__module__", ""))
        module = imported(node.get("py:module") or "latchstore")
        self._scopes = [self._class, own, module, import_module("latchstore"), builtins]

    def _look_up(self, name: str) -> Any:
        found = (looked_up(name, scope) for scope in self._scopes if scope is not None)
        thing = next((thing for thing in found if thing is not None), None) or imported(name)
        if thing is None and not self._in_text:
            ours = [module for path, module in sys.modules.items() if path.startswith("latchstore.")]
            return next((getattr(module, name) for module in ours if hasattr(module, name)), None)
        return thing

    def _documented(self, thing: Any) -> str | None:
        """Return the name of a class or function in the reference."""
        return next((name for name in self._domain.objects if imported(name) is thing), None)

    def documented(self) -> str | None:
        """Return the name that the reference has for what is meant."""
        if not self._in_text and (self._target in WORDS or is_builtin(self._target)):
            return None
        owner, _, attribute = self._target.rpartition(".")
        cls = self._look_up(owner) if owner else self._class
        for base in inspect.getmro(cls) if inspect.isclass(cls) else ():
            name = self._documented(base)
            if name is not None and f"{name}.{attribute}" in self._domain.objects:
                return f"{name}.{attribute}"
        if owner and attribute in variables(cls):
            return self._documented(cls)
        thing = self._look_up(self._target)
        return None if thing is None else self._documented(thing)

    def is_plain(self) -> bool:
        """Tell whether it needs no link: a parameter or an attribute, a type that is not public."""
        if self._in_text and re.fullmatch(r"[\w.]+", self._target):
            elsewhere = "." in self._target and not self._target.startswith("latchstore.")
            return self._target in self._parameters() or (elsewhere and imported(self._target) is not None)
        pieces = re.findall(r"[\w.-]+", re.sub(r"'[^']*'?", "", self._target))
        return all(piece in WORDS or self._look_up(piece) is not None for piece in pieces)

    def _parameters(self) -> set[str]:
        if self._class is not None:
            return set(variables(self._class))
        functions = [name for name, entry in self._domain.objects.items() if entry.objtype == "function"]
        return {parameter for name in functions for parameter in variables(imported(name))}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Make a link of a reference, or its text alone; None if it cannot be found."""
    if node["refdomain"] != "py":
        return None
    domain = env.domains.python_domain
    reference = Reference(domain, node)
    name = reference.documented()
    if name is None:
        return text if reference.is_plain() else None
    page = node["refdoc"]
    return domain.resolve_xref(env, page, app.builder, node["reftype"], name, node, text)


def public_bases(app: Sphinx, name: str, thing: Any, options: Any, bases: list[Any]) -> None:
    """Name the bases of private bases in place of those."""
    while private := [base for base in bases if inspect.isclass(base) and base.__name__.startswith("_")]:
        place = bases.index(private[0])
        bases[place : place + 1] = [each for each in private[0].__bases__ if each not in bases]


def comment_of_data(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Take the comment of a constant from where it is defined, in place of the docstring of its class."""
    attribute = name.rpartition(".")[2]
    ours = [path for path in sys.modules if path.startswith("latchstore.")] if what == "data" else []
    for path in ours:
        if vars(sys.modules[path]).get(attribute) is thing:
            comments = ModuleAnalyzer.for_module(path).find_attr_docs()
            lines[:] = comments.get(("", attribute), lines)


def is_left_out(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which are among the attributes and have no docstrings."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def split_attributes(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Give each of several attributes of one type (``x, y : int``) lines of its own, which napoleon needs."""
    if what != "class":
        return
    place = 0
    while place < len(lines):
        if several := re.fullmatch(r"(\w+(?:, \w+)+)( : .*)", lines[place]):
            end = place + 1
            while end < len(lines) and lines[end].startswith(" "):
                end += 1
            each = [
                [f"{attribute}{several[2]}", *lines[place + 1 : end]] for attribute in several[1].split(", ")
            ]
            lines[place:end] = [line for block in each for line in block]
        place += 1


def class_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leave out the parameters of a class that documents none: users do not make its objects."""
    return ("", "") if what == "class" and "Parameters\n" not in (thing.__doc__ or "") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Extend Sphinx."""
    app.add_domain(Domain, override=True)
    app.connect("missing-reference", resolve)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-bases", public_bases)
    app.connect("autodoc-skip-member", is_left_out)
    app.connect("autodoc-process-signature", class_signature)
    app.connect("autodoc-process-docstring", comment_of_data)
    app.connect("autodoc-process-docstring", split_attributes, priority=400)  # before napoleon's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
