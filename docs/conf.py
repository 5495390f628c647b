"""How Sphinx builds the site: ``tox -e docs``."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "latchstore"
author = "the authors of latchstore"
copyright = author
version = release = importlib.metadata.version("latchstore")

extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"latchstore {release}"

# Prompts, and what a command prints, are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

DOCS = Path(__file__).parent
ROOT = DOCS.parent

#: Pages that stand elsewhere in the repository. Below docs, each is one line with a link to it.
PAGES = {
    "CHANGELOG.md": "project/changelog",
    "CONTRIBUTING.md": "project/contributing",
    "DESIGN.md": "explanation/design",
    "benchmarks/README.md": "explanation/measurements",
    "src/latchstore/backends/README.md": "how-to/web-frameworks",
    "src/latchstore/cache_simulation/README.md": "how-to/choosing-a-policy",
    "src/latchstore/stress/README.md": "explanation/stress-harness",
    "tests/mutants/README.md": "explanation/mutants",
}

SITE = {"README.md": "index", **PAGES}


def here(match: re.Match[str], folder: Path) -> str:
    """Point a link of a page in `folder` to the page of the site, where there is one."""
    path = Path(os.path.normpath(folder / match["path"]))
    page = SITE.get(path.relative_to(ROOT).as_posix())
    target = f"{page}.md" if page else Path(os.path.relpath(path, DOCS)).as_posix()
    return f"](/{target}{match['anchor'] or ''})"


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take a page from where it stands in the repository, and mend the links that lead out of docs."""
    path = DOCS / f"{docname}.md"
    for outside, name in PAGES.items():
        if name == docname:
            path = ROOT / outside
            app.env.note_dependency(str(path))
            source[0] = path.read_text(encoding="utf-8")
    source[0] = re.sub(
        r"\]\((?!https?:|/|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)",
        lambda match: here(match, path.parent),
        source[0],
    )


def setup(app: Sphinx) -> None:
    """Extend Sphinx."""
    app.connect("source-read", read_page)
