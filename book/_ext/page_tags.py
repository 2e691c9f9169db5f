"""What search engines and previews of links read of a page without a `{claim-summary}`: title and first sentences."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

LONGEST = 200  # letters of a description


def tag(app: Sphinx, doctree: nodes.document) -> None:
    """Describe a page that does not describe itself."""
    if any(meta.get("name") == "description" for meta in doctree.findall(nodes.meta)):
        return
    title = next((heading.astext() for heading in doctree.findall(nodes.title)), "")
    description = shortened(next((text for one in doctree.findall(nodes.paragraph) if (text := prose(one))), title))
    doctree[0:0] = described(title, description)


def described(title: str, description: str) -> list[nodes.Node]:
    """What says so in the head of a page."""
    return [
        nodes.meta("", name="description", content=description),
        nodes.meta("", property="og:type", content="article"),
        nodes.meta("", property="og:title", content=title),
        nodes.meta("", property="og:description", content=description),
    ]


def prose(paragraph: nodes.paragraph) -> str:
    """The text of a paragraph that is one: no line of facts, of a list or of a table, and nothing short."""
    if paragraph.get("classes") or not isinstance(paragraph.parent, nodes.section | nodes.container):
        return ""
    text = " ".join(paragraph.astext().split())
    return text if len(text) > 40 else ""


def shortened(text: str) -> str:
    """The first whole sentences, else the first words, of at most `LONGEST` letters."""
    if len(text) <= LONGEST:
        return text
    end = text.rfind(". ", 0, LONGEST)
    return text[: end + 1] if end > 0 else text[: text.rfind(" ", 0, LONGEST - 1)] + "…"


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", tag, priority=900)
    return {"version": "1", "parallel_read_safe": True}
