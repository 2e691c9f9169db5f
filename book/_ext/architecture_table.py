"""The directive `{architecture-table}`: for every causal class of transformers, whether the probe is exact on it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from firsttoken.records import reference_store

WORDS = {
    "exact": "exact",
    "logits": "logits exact, no eager attention to compare with",
    "refused": "refused",
}
COLUMNS = {"model type": 20, "class": 32, "outcome": 16, "why": 40}


class ArchitectureTable(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        file = reference_store() / "architectures.json"
        self.env.note_dependency(str(file))
        outcomes: dict[str, dict[str, str]] = json.loads(Path(file).read_text(encoding="utf-8"))
        counts = Counter(one["outcome"] for one in outcomes.values())
        told = ", ".join(f"{counts[name]} {words}" for name, words in WORDS.items() if counts[name])
        # A sentence behind an exact one says why the chapters refuse it all the same.
        measurable = sum(one["outcome"] == "exact" and not one["sentence"] for one in outcomes.values())
        group = nodes.tgroup(cols=len(COLUMNS))
        group += [nodes.colspec(colwidth=width, stub=name == "model type") for name, width in COLUMNS.items()]
        group += nodes.thead("", row([nodes.Text(name) for name in COLUMNS]))
        group += nodes.tbody(
            "",
            *(
                row(
                    [
                        nodes.literal("", model_type),
                        nodes.literal("", one["class"]),
                        nodes.Text(WORDS[one["outcome"]]),
                        nodes.Text(one["sentence"]),
                    ]
                )
                for model_type, one in sorted(outcomes.items())
            ),
        )
        summary = f"{len(outcomes)} model types: {told}. Chapters run on {measurable} of the exact ones."
        return [nodes.paragraph("", summary), nodes.table("", group, classes=["colwidths-given"])]


def row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("architecture-table", ArchitectureTable)
    return {"version": "1", "parallel_read_safe": True}
