"""The directive `{head-map} MODEL ...`: a compact live map of the heads of some models, from committed records.

The chapter `phenomenon` shows the same map with more room; one script draws both. The maps of each model become a
file below `_static`, which a page asks for when the model is chosen.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from firsttoken.claims.phenomenon.figures import all_heads
from firsttoken.claims.phenomenon.head_map import Choice, compact, maps_script
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
        still = all_heads(records[0], size=(3.9, 2.8))
        return [nodes.raw("", compact([self.choice(record) for record in records], still), format="html")]

    def choice(self, record: Record) -> Choice:
        """A model, its maps written beside the pages under an address that changes when they do."""
        script = maps_script(record)
        file = Path(self.env.app.outdir) / "_static" / FOLDER / f"{record.model}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script, encoding="utf-8")
        address = f"{FOLDER}/{file.name}?v={sha256(script.encode()).hexdigest()[:8]}"
        return Choice(record=record, name=model_name(record.model).name, maps=address)


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("head-map", HeadMap)
    return {"version": "1", "parallel_read_safe": True}
