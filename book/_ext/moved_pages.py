"""The former address of a chapter leads to its present one."""

from __future__ import annotations

from html import escape
from pathlib import Path

from sphinx.application import Sphinx

from firsttoken.records.schema import FORMER_CLAIMS

# The script keeps the place within the page, which a refresh would lose.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>This chapter has moved</title>
<link rel="canonical" href="{target}">
<script>location.replace("{target}" + location.search + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url={target}"></noscript>
</head>
<body>
<main>
<h1>This chapter has moved</h1>
<p>It is now <a href="{target}">{name}</a>.</p>
</main>
</body>
</html>
"""


def lead_on(app: Sphinx, error: Exception | None) -> None:
    """Write a page at the former address of each chapter that is in the book."""
    if error or app.builder.name != "html":
        return
    folder = Path(app.outdir) / "book" / "chapters"
    for former, present in FORMER_CLAIMS.items():
        target = folder / f"{present}.html"
        if target.exists():
            page = PAGE.format(target=escape(target.name), name=escape(present.replace("_", " ")))
            target.with_name(f"{former}.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("build-finished", lead_on)
    return {"version": "1", "parallel_read_safe": True}
