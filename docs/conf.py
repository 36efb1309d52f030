"""Configuration of Sphinx: ``python -m sphinx -W --keep-going -n -b html docs build/docs``."""

import selkern

project = "selkern"
author = "selkern contributors"
version = release = selkern.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
html_theme = "furo"
html_title = f"selkern {version}"
html_show_copyright = False

# The sections on parameters say what types there are, in the field's own words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
myst_heading_anchors = 3
# Links to files outside this folder, which the tests follow.
suppress_warnings = ["myst.xref_missing"]

# Other projects' pages, which a build does not fetch, and what Python itself raises.
nitpick_ignore = [("py:class", "Tensor")]
nitpick_ignore_regex = [
    ("py:.*", r"(torch|numpy)\..*"),
    ("py:exc", r"[A-Z][A-Za-z]*(Error|Warning)"),
]
