"""Pages of the site that stand elsewhere in the repository, and links of pages to each other."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent

#: Where each is on the site. The file there is one line with a link, for those who read the repository.
PAGES = {
    "CHANGELOG.md": "project/changelog",
    "CONTRIBUTING.md": "project/contributing",
    "DESIGN.md": "explanation/design",
    "benchmarks/README.md": "explanation/measurements",
    "src/latchstore/backends/README.md": "how-to/web-frameworks",
    "src/latchstore/cache_simulation/README.md": "how-to/choosing-a-policy",
    "src/latchstore/stress/README.md": "explanation/stress-harness",
    "tests/interrupts/README.md": "explanation/exceptions",
    "tests/mutants/README.md": "explanation/mutants",
}

_LINK = re.compile(r"\]\((?!https?:|/|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def _link_on_the_site(match: re.Match[str], folder: Path) -> str:
    """Rewrite a link of a page in `folder`: to the page of the site, if there is one, else to the file."""
    path = Path(os.path.normpath(folder / match["path"]))
    page = {"README.md": "index", **PAGES}.get(path.relative_to(ROOT).as_posix())
    target = f"{page}.md" if page else Path(os.path.relpath(path, DOCS)).as_posix()
    return f"](/{target}{match['anchor'] or ''})"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    path = DOCS / f"{docname}.md"
    for outside, page in PAGES.items():
        if page == docname:
            path = ROOT / outside
            app.env.note_dependency(str(path))
            source[0] = path.read_text(encoding="utf-8")
    source[0] = _LINK.sub(lambda match: _link_on_the_site(match, path.parent), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Extend Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
