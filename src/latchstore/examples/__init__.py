"""Example programs; ``python -m latchstore demo`` runs one of them.

Their source is in the folder ``examples`` beside ``src``. A wheel has those that commands run in this package
(pyproject.toml); a checkout and an editable install use the folder.

They import public names only. Begin with ``demo.py``.
"""

from pathlib import Path

__path__.append(str(Path(__file__).parents[3] / "examples"))
