"""The last lines of a chapter: which one comes next, and why to read it."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from firsttoken import claims
from firsttoken.book.chapters import listed

FOLDER = "book/chapters/"
SERVING = "book/serving"  # where the chapters end
ENDS = "What all of it means for whoever serves a model."


def point_on(app: Sphinx, doctree: nodes.document) -> None:
    """Put a link to the next chapter of this book at the end of each."""
    here = app.env.docname
    if not here.startswith(FOLDER):
        return
    names = [name for name in listed(Path(app.srcdir)) if FOLDER + name in app.env.found_docs]
    place = names.index(name) + 1 if (name := here.removeprefix(FOLDER)) in names else len(names)
    if place < len(names):
        target, why = FOLDER + names[place], claims.claim(names[place]).leads_here
    elif SERVING in app.env.found_docs:
        target, why = SERVING, ENDS
    else:
        return
    link = addnodes.pending_xref(
        "", nodes.inline(), refdomain="std", reftype="doc", reftarget=f"/{target}", refexplicit=False, refwarn=True,
        refdoc=here,
    )  # fmt: skip
    paragraph = nodes.paragraph(
        "", "", nodes.strong("", "Next: "), link, nodes.Text(f" {why}"), classes=["next-chapter"]
    )
    (doctree.children[-1] if isinstance(doctree.children[-1], nodes.section) else doctree).append(paragraph)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", point_on)
    return {"version": "1", "parallel_read_safe": True}
