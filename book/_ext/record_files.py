"""Files to download: the records of a chapter as JSON and their estimates as CSV, the numbers of each figure as CSV.

Records have the names of the foot of a chapter, `results/<claim>/<record>.json` and `.csv` below `_static`; figures
are counted in each page, `figures/<page>-<number>.csv`.
"""

from __future__ import annotations

import itertools
import re
from html import unescape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from firsttoken.book.addresses import published
from firsttoken.records import all_records
from firsttoken.records.frame import table_of
from firsttoken.records.store import as_json

_NUMBERS = re.compile(r'(?P<end></figcaption>)\s*<template class="figure-data">(?P<csv>.*?)</template>', re.DOTALL)


def write_files(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    # Those of single runs and of benchmarks too: chapters name them at their foot.
    for record in all_records():
        file = Path(app.outdir) / "_static" / "results" / record.claim / record.filename
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_json(published(record)), encoding="utf-8")
        table_of([record]).to_csv(file.with_suffix(".csv"), index=False)


def point_at_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """The foot of a chapter cannot know how deep its page will lie; the numbers of its figures leave the page."""
    if "body" in context:
        here = context["pathto"]("_static/results/", 1)
        body = context["body"].replace('href="../../_static/results/', f'href="{here}')
        context["body"] = numbers_as_files(app, page, body, context["pathto"]("_static/figures/", 1))


def numbers_as_files(app: Sphinx, page: str, body: str, here: str) -> str:
    """A page whose figures link to their numbers, which become files, instead of holding them.

    Args:
        here: the folder of the files, from the page.
    """
    counted = itertools.count(1)

    def moved(numbers: re.Match[str]) -> str:
        if app.builder.name != "html":
            return numbers["end"]  # on paper nothing can be downloaded
        name = f"{page.replace('/', '-')}-{next(counted)}.csv"
        file = Path(app.outdir) / "_static" / "figures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(unescape(numbers["csv"]), encoding="utf-8")
        return f' <a class="figure-download" href="{here}{name}" download>Its numbers (CSV)</a>{numbers["end"]}'

    return _NUMBERS.sub(moved, body)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("html-page-context", point_at_files)
    app.connect("build-finished", write_files)
    return {"version": "1", "parallel_read_safe": True}
