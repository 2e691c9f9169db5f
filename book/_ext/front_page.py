"""What the front page shows besides prose and board: facts of the book, the tally, open claims, a drawing.

Chapters have drawings too. Dates are those of records: the day of a build would make every build differ.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

from claim_results import main_records, on_the_board, status
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from verdict_board import chapter_link

from firsttoken.book.repository import repository
from firsttoken.claims.base import SIGNS
from firsttoken.records import all_records

PAPER = "barbero2025first"  # its entry in the references
PAPER_URL = "https://arxiv.org/abs/2504.02732"


def version(root: Path) -> str:
    """The version of the project; empty in a book that has no pyproject.toml."""
    if not (file := root / "pyproject.toml").exists():
        return ""
    return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])


def newest() -> str:
    """The day on which the newest record was measured; empty without records."""
    return max((str(record.provenance.get("time", "")) for record in all_records()), default="")[:10]


def paper_entry(root: Path) -> str:
    """The BibTeX entry of the paper, as the references have it, without the letter behind its year."""
    entries = (root / "book" / "references.bib").read_text(encoding="utf-8")
    entry = re.search(rf"^@\w+\{{{PAPER},.*?^\}}", entries, re.MULTILINE | re.DOTALL)
    return re.sub(r"(year = \{\d+)[a-z]\}", r"\1}", entry[0]) if entry else ""


class BookFacts(SphinxDirective):
    """Authors, version, date, the paper, and how to cite both."""

    def run(self) -> list[nodes.Node]:
        root, authors = Path(self.env.srcdir), self.config.author
        number, day = version(root), newest()
        facts = [authors, f"version {number}" if number else "", f"newest measurement {day}" if day else ""]
        line = nodes.paragraph("", "", nodes.Text(" · ".join(filter(None, facts)) + " · "), classes=["book-facts"])
        line += nodes.reference("", "", nodes.Text("the paper, arXiv 2504.02732"), refuri=PAPER_URL, internal=False)
        here = repository(root)
        own = {
            "title": "{Why do LLMs attend to the first token? An executable book on attention sinks}",
            "author": f"{{{{{authors}}}}}",
            "year": f"{{{day[:4]}}}" if day else "",
            "note": f"{{Version {number}}}" if number else "",
            "url": f"{{{here.address}}}" if here else "",
        }
        fields = ",\n".join(f"  {name} = {value}" for name, value in own.items() if value)
        bibtex = f"@software{{firsttoken,\n{fields}\n}}\n\n{paper_entry(root)}".rstrip()
        block = nodes.literal_block(bibtex, bibtex, language="bibtex")
        return [line, *folded("Cite this book and the paper (BibTeX)", block)]


def folded(title: str, content: nodes.Node) -> list[nodes.Node]:
    """Content behind a title that opens it, without a script."""
    opening = nodes.raw("", f'<details class="folded"><summary>{escape(title)}</summary>', format="html")
    return [opening, content, nodes.raw("", "</details>", format="html")]


class VerdictTally(SphinxDirective):
    """How many verdicts of each kind the board has."""

    def run(self) -> list[nodes.Node]:
        claims = on_the_board()
        records = [record for claim in claims for record in main_records(claim)]
        counts = Counter(map(status, records))
        words = [*SIGNS, *sorted(set(counts) - set(SIGNS))]
        tally = nodes.bullet_list("", classes=["tally"])
        for word in words:
            sign = nodes.raw("", f'<span aria-hidden="true">{SIGNS.get(word, "–")}</span> ', format="html")
            entry = nodes.paragraph("", "", sign, nodes.strong("", str(counts[word])), nodes.Text(f" {word}"))
            tally += nodes.list_item("", entry, classes=[f"verdict-{nodes.make_id(word)}"])
        said = f"{len(claims)} claims, {len(records)} verdicts, each about one model or about the models trained here."
        return [nodes.paragraph("", "", nodes.Text(said)), tally]


class OpenClaims(SphinxDirective):
    """For each claim that is not reproduced wherever it was measured: what would change our mind."""

    def run(self) -> list[nodes.Node]:
        lines = nodes.bullet_list("", classes=["open-claims"])
        for claim in on_the_board():
            words = {status(record) for record in main_records(claim)}
            if claim.would_change and words != {"reproduced"}:
                link = chapter_link(self.env.docname, self.env.found_docs, claim)
                lines += nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(f" {claim.would_change}")))
        return [lines]


class Drawing(SphinxDirective):
    """An SVG file within the page, so that it takes the colours of the theme; the content, if any, is its caption."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        file = Path(self.env.srcdir) / "book" / "_static" / self.arguments[0]
        self.env.note_dependency(str(file))
        svg = file.read_text(encoding="utf-8")
        if not self.content:
            return [nodes.raw("", f'<figure class="drawing">{svg}</figure>', format="html")]
        opening = nodes.raw("", f'<figure class="drawing captioned">{svg}<figcaption>', format="html")
        return [opening, *self.parse_content_to_nodes(), nodes.raw("", "</figcaption></figure>", format="html")]


def setup(app: Sphinx) -> dict[str, object]:
    for name, directive in (
        ("book-facts", BookFacts),
        ("verdict-tally", VerdictTally),
        ("open-claims", OpenClaims),
        ("drawing", Drawing),
    ):
        app.add_directive(name, directive)
    return {"version": "1", "parallel_read_safe": True}
