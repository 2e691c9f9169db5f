"""What is closed on a page stands open on the one page that is printed, where nothing can be clicked."""

from __future__ import annotations

from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx


def _as_it_is(translator: object, node: HideCodeCellNode) -> None:
    """What the node holds is written, and nothing around it."""


def setup(app: Sphinx) -> dict[str, object]:
    app.add_node(HideCodeCellNode, override=True, singlehtml=(_as_it_is, _as_it_is))
    return {"version": "1", "parallel_read_safe": True}
