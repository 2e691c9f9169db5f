"""The directive `{head-map} MODEL ...`: a compact live map of the heads of some models, from committed records.

The chapter `phenomenon` shows the same map with more room; one script draws both. The maps of each model on each
passage become a file below `_static`, which a page asks for when they are chosen.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from firsttoken.claims.phenomenon.figures import all_heads
from firsttoken.claims.phenomenon.head_map import Choice, Seen, compact, maps_script, read
from firsttoken.model_names import model_name
from firsttoken.records import Record, find
from firsttoken.records.numbers import NOT_RUN

FOLDER = "head-maps"  # below `_static`


class HeadMap(SphinxDirective):
    """The map; a few words where nothing was measured."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        named = (find("phenomenon", model) for model in self.arguments[0].split())
        records = [record for record in named if record is not None]
        if not records:
            return [nodes.paragraph("", "", nodes.Text(NOT_RUN), classes=["not-run"])]
        others = [find("phenomenon", record.model, "passages") for record in records]
        if None in others:  # the choice of passages is the same for all models
            others = [None] * len(records)
        choices = [self.choice(*both) for both in zip(records, others, strict=True)]
        still = all_heads(records[0], size=(3.9, 2.8))
        return [nodes.raw("", compact(choices, still), format="html")]

    def choice(self, record: Record, others: Record | None) -> Choice:
        """A model, its maps written beside the pages."""
        return Choice(
            name=model_name(record.model).name,
            layers=record.layer_numbers(len(record.values["alpha"])),
            passages=[
                Seen(title=title, values=values, maps=self.written(f"{record.model}-{number}", maps_script(values)))
                for number, (title, values) in enumerate(read(record, others))
            ],
        )

    def written(self, name: str, script: str) -> str:
        """Where a script now lies, from the folder of static files; another address whenever its text is another."""
        file = Path(self.env.app.outdir) / "_static" / FOLDER / f"{name}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script, encoding="utf-8")
        return f"{FOLDER}/{file.name}?v={sha256(script.encode()).hexdigest()[:8]}"


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("head-map", HeadMap)
    return {"version": "1", "parallel_read_safe": True}
