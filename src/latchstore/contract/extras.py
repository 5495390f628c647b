"""The error for a package that an extra of latchstore installs and that is missing.

Thread safety: the function keeps nothing.
"""

from __future__ import annotations


def missing_extra(what: str, packages: str, extra: str, error: ImportError) -> ModuleNotFoundError:
    """Return the error to raise, from `error`, where `what` needs packages that cannot be imported."""
    return ModuleNotFoundError(
        f"{what} needs {packages}: python -m pip install 'latchstore[{extra}]' ({error})", name=error.name
    )
