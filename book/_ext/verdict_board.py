"""The directive `{verdict-board}`: every claim, what the paper reports, what was measured here, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docutils import nodes
from result_role import result_node
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from firsttoken import claims
from firsttoken.book.chapters import listed
from firsttoken.claims.base import Claim
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, all_records
from firsttoken.records.numbers import NOT_MEASURED_YET, estimate, fill

logger = logging.getLogger(__name__)

COLUMNS = {"claim": 28, "paper": 26, "here": 26, "verdict": 12, "chapter": 8}


class VerdictBoard(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup(cols=len(COLUMNS))
        group += [nodes.colspec(colwidth=width, stub=name == "claim") for name, width in COLUMNS.items()]
        group += nodes.thead("", self.row([nodes.paragraph(name, name)] for name in COLUMNS))
        group += nodes.tbody("", *(self.row(self.cells(claim)) for claim in on_the_board()))
        return [nodes.table("", group, classes=["verdict-board", "colwidths-given"])]

    def row(self, cells: Iterable[list[nodes.Node]]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", *content) for content in cells))

    def cells(self, claim: Claim) -> list[list[nodes.Node]]:
        records = [record for record in all_records(claim.id) if not record.variant]
        return [
            [text(claim.statement)],
            [text(fill(claim.paper))],
            self.measured(claim, records),
            verdicts(records),
            [self.chapter(claim)],
        ]

    def measured(self, claim: Claim, records: Sequence[Record]) -> list[nodes.Node]:
        if not records:
            return [text(NOT_MEASURED_YET, "not-measured")]
        lines: list[nodes.Node] = [text(f"{claim.headline_name}:")]
        for record in records:
            try:
                if claim.headline not in record.values:
                    known = ", ".join(record.values)
                    raise FirstTokenError(f"{claim.id}/{record.filename} has only {known}, not {claim.headline}.")
                number = result_node(estimate(record.values[claim.headline], claim.format))
            except FirstTokenError as error:
                logger.warning("%s", error, location=self.get_location(), type="result")
                continue
            lines.append(nodes.paragraph("", "", nodes.literal("", record.model), nodes.Text(" "), number))
        return lines

    def chapter(self, claim: Claim) -> nodes.Node:
        target = f"book/chapters/{claim.id}"
        if target not in self.env.found_docs:
            return text("to come", "not-measured")
        words = nodes.inline("", claim.id.replace("_", " "))
        link = addnodes.pending_xref(
            "", words, refdomain="std", reftype="doc", reftarget=f"/{target}", refexplicit=True, refwarn=True
        )
        link["refdoc"] = self.env.docname
        return nodes.paragraph("", "", link)


def on_the_board() -> list[Claim]:
    """Every claim with a headline number, in the order of the table of contents."""
    order = {name: number for number, name in enumerate(listed())}
    cards = [claims.claim(name) for name in claims.names()]
    return sorted((card for card in cards if card.headline), key=lambda card: order.get(card.id, len(order)))


def text(content: str, *classes: str) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.inline(content, content, classes=list(classes)))


def verdicts(records: Sequence[Record]) -> list[nodes.Node]:
    """One verdict a record, with the model's name where there are several."""
    judged = [(record, verdict.status) for record in records if (verdict := claims.verdict(record))]
    if not judged:
        return [text(NOT_MEASURED_YET, "not-measured")]
    lines: list[nodes.Node] = []
    for record, status in judged:
        badge = nodes.inline(status, status, classes=["verdict", f"verdict-{nodes.make_id(status)}"])
        name = [nodes.Text(" "), nodes.literal("", record.model)] if len(judged) > 1 else []
        lines.append(nodes.paragraph("", "", badge, *name))
    return lines


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("verdict-board", VerdictBoard)
    return {"version": "1", "parallel_read_safe": True}
