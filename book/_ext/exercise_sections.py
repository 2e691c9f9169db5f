"""Give what stands under the title of an exercise no name: sphinx-exercise gives all of them the same."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_SHARED = {"exercise-content", "solution-content"}


def without_shared_ids(app: Sphinx, tree: nodes.document, page: str) -> None:
    """An id stands for one thing on a page."""
    for section in tree.findall(nodes.section):
        section["ids"] = [name for name in section["ids"] if name not in _SHARED]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", without_shared_ids)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
