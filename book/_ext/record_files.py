"""The records of a chapter as files to download: the JSON as it is stored, and its estimates as CSV.

The names are those of the foot of a chapter, `results/<claim>/<record>.json` and `.csv` below `_static`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from firsttoken.records import all_records
from firsttoken.records.frame import table_of
from firsttoken.records.store import as_json


def write_files(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    # Those of single runs and of benchmarks too: chapters name them at their foot.
    for record in all_records():
        file = Path(app.outdir) / "_static" / "results" / record.claim / record.filename
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_json(record), encoding="utf-8")
        table_of([record]).to_csv(file.with_suffix(".csv"), index=False)


def point_at_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """The foot of a chapter cannot know how deep its page will lie."""
    if "body" in context:
        here = context["pathto"]("_static/results/", 1)
        context["body"] = context["body"].replace('href="../../_static/results/', f'href="{here}')


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("html-page-context", point_at_files)
    app.connect("build-finished", write_files)
    return {"version": "1", "parallel_read_safe": True}
