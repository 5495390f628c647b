"""Programs that show the store; ``python -m latchstore demo`` runs one of them.

They stand in the folder ``examples`` of the source, beside ``src``. A wheel has those that commands run in
this package (pyproject.toml), a checkout and an editable install take them from where they are.
"""

from pathlib import Path

__path__.append(str(Path(__file__).parents[3] / "examples"))
