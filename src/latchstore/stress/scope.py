"""Which code is under test: where threads may change, and whose locks are made cooperative.

Thread safety: nothing here changes but a cache, by single operations of a dict.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from latchstore.programs import PROGRAMS

_PACKAGE = Path(__file__).parent.parent

#: Parts of this package that are not the store.
_NOT_UNDER_TEST = tuple(str(_PACKAGE / name) for name in PROGRAMS)


class Scope:
    """The files of the store under test: its package, or its file if it is in none, and latchstore.

    Parameters
    ----------
    factory : callable
        Makes the store: a class, or a function.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        module = inspect.getmodule(inspect.unwrap(factory))
        paths = [str(_PACKAGE)]
        if module is not None:
            package = sys.modules.get(module.__name__.partition(".")[0])
            own = getattr(package, "__path__", None)
            file = getattr(module, "__file__", None)
            # A class of a package with many others, such as tests: its module alone.
            paths.extend(own if own and _is_library(own) else [file] if file else [])
        self._paths = tuple(paths)
        self._known: dict[CodeType, bool] = {}

    def __contains__(self, file: str) -> bool:
        return file.startswith(self._paths) and not file.startswith(_NOT_UNDER_TEST)

    def traced(self, code: CodeType) -> bool:
        """Tell whether threads may change inside a code object."""
        known = self._known.get(code)
        if known is None:
            known = self._known[code] = code.co_filename in self
        return known

    def modules(self) -> Iterator[ModuleType]:
        """Return the modules under test, and readerwriterlock's."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and (file in self or name.startswith("readerwriterlock")):
                yield module


def _is_library(path: list[str]) -> bool:
    return any("site-packages" in each or "dist-packages" in each for each in path)
