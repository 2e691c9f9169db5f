"""The directive `{verdict-board}`: every claim, what the paper reports, what was measured here, and the verdict.

A list with a grid in each entry, so that it is a table on a wide screen and cards on a phone.
"""

from __future__ import annotations

from claim_results import headline_name, line, main_records, on_the_board
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from firsttoken.claims.base import Claim
from firsttoken.records.numbers import NOT_RUN, fill


class VerdictBoard(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        entries = [
            nodes.list_item(
                "",
                nodes.container("", *self.said(claim), classes=["board-claim"]),
                nodes.container("", *self.measured(claim), classes=["board-here"]),
            )
            for claim in on_the_board()
        ]
        return [nodes.bullet_list("", *entries, classes=["verdict-board"])]

    def said(self, claim: Claim) -> list[nodes.Node]:
        return [
            nodes.paragraph(
                "", "", chapter_link(self.env.docname, self.env.found_docs, claim), classes=["board-title"]
            ),
            text(claim.statement),
            text(f"Paper: {fill(claim.paper)}", "board-note"),
        ]

    def measured(self, claim: Claim) -> list[nodes.Node]:
        records = main_records(claim)
        if not records:
            return [text(NOT_RUN, "not-run")]
        lines: list[nodes.Node] = [text(headline_name(claim, records[0]), "board-note")]
        for record in records:
            lines.append(line(claim, record))
        return lines


def chapter_link(page: str, pages: set[str], claim: Claim) -> nodes.Node:
    """A link to the chapter of a claim, under the chapter's own title."""
    target = f"book/chapters/{claim.id}"
    if target not in pages:
        return nodes.inline("", "", nodes.Text(f"{claim.id.replace('_', ' ')} (to come)"), classes=["not-run"])
    link = addnodes.pending_xref(
        "",
        nodes.inline("", ""),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{target}",
        refexplicit=False,
        refwarn=True,
    )
    link["refdoc"] = page
    return link


def text(content: str, *classes: str) -> nodes.paragraph:
    return nodes.paragraph(content, "", nodes.Text(content), classes=list(classes))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("verdict-board", VerdictBoard)
    return {"version": "1", "parallel_read_safe": True}
