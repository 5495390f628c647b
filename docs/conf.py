"""How Sphinx builds the site: ``tox -e docs``."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_extensions")))

project = "latchstore"
author = "the authors of latchstore"
copyright = author
version = release = importlib.metadata.version("latchstore")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    # Of docs/_extensions:
    "command_line",
    "figures",
    "references",
    "repository_pages",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # a method that keeps the contract of its base is documented there
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Thread safety", ("Events", "params_style")]

html_theme = "furo"
pygments_dark_style = "a11y-high-contrast-dark"  # of the same family as the light one; underlines no names
html_title = f"latchstore {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False  # of a page that stands elsewhere in the repository it would be one line with a link

# Prompts, and what a command prints, are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
