"""How Sphinx builds the site: ``make docs``."""

import importlib.metadata

from docutils import nodes

project = "QCG-PilotJob Executor API"
author = "the developers of QCG-PilotJob Executor API"
copyright = author  # noqa: A001  # the name that Sphinx wants
release = version = importlib.metadata.version("qcg-pilotjob-executor-api")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# links to headings, as they are written for other readers of Markdown
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # a name in single backticks

# templates are JSON with placeholders
suppress_warnings = ["misc.highlighting_failure"]

copybutton_prompt_text = "$ "

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False


# napoleon takes the words before a colon in an attribute's docstring for its type,
# so it is shown another character there.
_NO_COLON = "\ue000"


def _hide_colons(app, what, name, obj, options, lines):
    if what in {"attribute", "data", "property"}:
        lines[:] = [line.replace(":", _NO_COLON) for line in lines]


def _show_colons(app, what, name, obj, options, lines):
    lines[:] = [line.replace(_NO_COLON, ":") for line in lines]


def _mark_long_names(app, doctree):
    for table in doctree.findall(nodes.table):
        for literal in table.findall(nodes.literal):
            if any(len(word) > 24 for word in literal.astext().split()):
                literal["classes"].append("long")


def setup(app):
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)
    app.connect("autodoc-process-docstring", _show_colons, priority=600)
    app.connect("doctree-read", _mark_long_names)
