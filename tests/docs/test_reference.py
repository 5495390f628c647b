"""docs/reference has every public name, and each class tells which threads may use it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import latchstore
from latchstore import BaseEvent

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

#: Modules whose names are public, and the library that each needs.
MODULES = {
    "latchstore": None,
    "latchstore.aio": None,
    "latchstore.stress": None,
    "latchstore.top": None,
    "latchstore.metrics": "prometheus_client",
    "latchstore.backends.cachelib": "cachelib",
    "latchstore.backends.django": "django",
    "latchstore.backends.dogpile": "dogpile.cache",
    "latchstore.backends.flask_caching": "flask_caching",
}


def documented() -> set[str]:
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    return set(re.findall(r"^\.\. auto\w+:: (\S+)$", text, flags=re.MULTILINE))


def public_names(module: str) -> Iterator[tuple[str, Any]]:
    """Return the names that a module has of its own, or says to be public."""
    if (library := MODULES[module]) is not None:
        pytest.importorskip(library)
    names = vars(importlib.import_module(module))
    public = names.get("__all__") or [
        name
        for name, thing in names.items()
        if not name.startswith("_") and inspect.isclass(thing) and thing.__module__ == module
    ]
    for name in public:
        if name != "__version__":
            yield name, getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    names = {f"{module}.{name}" for name, _ in public_names(module)}
    assert names
    assert names - documented() == set()


def test_the_reference_has_no_name_that_is_gone() -> None:
    for name in documented():
        module, _, attribute = name.rpartition(".")
        if MODULES.get(module) is None:
            assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("module", MODULES)
def test_classes_tell_about_threads(module: str) -> None:
    """Of errors, events and tuples, which are immutable, the pages tell it once."""
    classes = [(name, thing) for name, thing in public_names(module) if inspect.isclass(thing)]
    silent = [
        name
        for name, thing in classes
        if not issubclass(thing, (BaseException, BaseEvent, tuple))
        and not re.search(r"Thread safety\n|\bthreads?\b", thing.__dict__.get("__doc__") or "")
    ]
    assert silent == []


@pytest.mark.parametrize("page", ["errors.md", "events.md"])
def test_pages_of_errors_and_events_tell_about_threads(page: str) -> None:
    assert "Thread safety: " in (REFERENCE / page).read_text(encoding="utf-8")


def test_errors_are_on_one_page() -> None:
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    errors = {
        name
        for name, thing in vars(latchstore).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert {name for name in errors if f":: latchstore.{name}\n" not in text} == set()
