"""Programs that show the store; ``python -m latchstore demo`` runs one of them.

They stand in the folder ``examples`` of the source, beside ``src``. A wheel has those that commands run in
this package (pyproject.toml), a checkout and an editable install take them from where they are.

They import what a user would: the public names. Begin with ``demo.py``.
"""

from pathlib import Path

__path__.append(str(Path(__file__).parents[3] / "examples"))
