"""The directive `{claim-summary} <claim>`: what a chapter is about and what came out, under its title; and the same
for search engines and for previews of links.

On a page of another model, `book/models/<slug>/...`, it shows the records of that model alone.
"""

from __future__ import annotations

import re

from claim_results import headline_name, identities, line, main_records
from docutils import nodes
from front_page import folded
from page_tags import described
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from firsttoken import claims
from firsttoken.errors import FirstTokenError
from firsttoken.records.numbers import NOT_RUN, fill

logger = logging.getLogger(__name__)
MODEL_PAGE = re.compile(r"book/models/([^/]+)/")


class ClaimSummary(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            return [*self.tags(self.arguments[0]), self.summary(self.arguments[0])]
        except FirstTokenError as error:
            logger.warning("%s", error, location=self.get_location(), type="result")
            return []

    def tags(self, name: str) -> list[nodes.Node]:
        """What search engines, previews of links and the book's own search read."""
        claim = claims.claim(name)
        title = next((heading.astext() for heading in self.state.document.findall(nodes.title)), claim.statement)
        return [
            *described(title, claim.statement),
            nodes.meta("", name="keywords", content=", ".join(claim.keywords)),
        ]

    def summary(self, name: str) -> nodes.container:
        claim = claims.claim(name)
        page = MODEL_PAGE.match(self.env.docname)
        records = main_records(claim, page[1] if page else "")
        results: list[nodes.Node] = [line(claim, record) for record in records]
        if not records:
            results = [plain(NOT_RUN)]
        elif claim.headline:
            results.append(plain(f"Number: {headline_name(claim, records[0])}, with 95 % interval over {claim.unit}."))
        if known := identities(records):
            results.append(nodes.paragraph("", "", *known, classes=["result-note"]))
        rows = [
            row("Claim", plain(claim.statement)),
            row("Paper", plain(fill(claim.paper))),
            row("Here", *results),
            *([row("Not shown", plain(claim.shows_not))] if claim.shows_not else []),
            # The page prints it once more, below its verdict.
            row("Rule", *folded(f"Fixed: {claim.fixed}.", plain(claim.rule_in_full))),
        ]
        return nodes.container("", nodes.definition_list("", *rows), classes=["claim-summary"])


def plain(text: str) -> nodes.paragraph:
    return nodes.paragraph(text, "", nodes.Text(text))


def row(name: str, *content: nodes.Node) -> nodes.definition_list_item:
    term = nodes.term(name, "", nodes.Text(name))
    return nodes.definition_list_item(
        "", term, nodes.definition("", *content), classes=[f"summary-{nodes.make_id(name)}"]
    )


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("claim-summary", ClaimSummary)
    return {"version": "1", "parallel_read_safe": True}
