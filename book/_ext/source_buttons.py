"""Make the launch, download and repository buttons of a chapter lead to its notebook without outputs.

The page itself is built from an executed copy, which is not in the repository and would not run from there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# book/chapters/NAME and book/models/SLUG/NN-NAME are both made from notebooks/NAME.ipynb.
EXECUTED = re.compile(r"book/(?:chapters/|models/[^/]+/\d+-)([^/?#]+?)\.ipynb")


def point_at_source(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    def rewrite(buttons: list[dict[str, Any]]) -> None:
        for button in buttons:
            if "url" in button and "issues/new" not in button["url"]:
                button["url"] = EXECUTED.sub(r"notebooks/\1.ipynb", button["url"])
            rewrite(button.get("buttons", []))

    rewrite(context.get("header_buttons", []))


def copy_sources(app: Sphinx, error: Exception | None) -> None:
    """Put the notebooks where the rewritten download buttons look for them."""
    if error or app.builder.name != "html":
        return
    target = Path(app.outdir) / "_sources" / "notebooks"
    target.mkdir(parents=True, exist_ok=True)
    for notebook in (Path(app.srcdir) / "notebooks").glob("*.ipynb"):
        shutil.copyfile(notebook, target / notebook.name)


def setup(app: Sphinx) -> dict[str, object]:
    # After the theme has filled in the buttons.
    app.connect("html-page-context", point_at_source, priority=950)
    app.connect("build-finished", copy_sources)
    return {"version": "1", "parallel_read_safe": True}
