"""The role `` {result}`claim.model.name:format` ``: a measured number in prose, read from its record.

A record that does not exist gives "not run"; a key that leads nowhere is a warning, which fails the
build. `` {result-interval}`...` `` prints the interval too, for pages that hide nothing behind a pointer.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole
from sphinx.writers.html5 import HTML5Translator

from firsttoken.errors import FirstTokenError
from firsttoken.records.numbers import Quoted, quote

logger = logging.getLogger(__name__)


class result(nodes.inline):
    """A quoted number; its `detail` (interval and n) is shown on hover and read out after the number."""


def result_node(quoted: Quoted) -> result:
    """The node for a number, as role and verdict board show it."""
    classes = ["result"] if quoted.measured else ["result", "not-run"]
    return result(quoted.text, quoted.text, classes=classes, detail=quoted.detail)


class ResultRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            quoted = quote(self.text)
        except FirstTokenError as error:
            logger.warning("%s", error, location=self.get_location(), type="result")
            return [nodes.problematic(self.text, self.text)], []
        return [result_node(quoted), *self.after(quoted)], []

    def after(self, quoted: Quoted) -> list[nodes.Node]:
        """What stands behind the number."""
        return []


class ResultIntervalRole(ResultRole):
    def after(self, quoted: Quoted) -> list[nodes.Node]:
        bracket = nodes.inline("", "", nodes.Text(quoted.bracket), classes=["interval"])
        return [nodes.Text("\N{NO-BREAK SPACE}"), bracket] if quoted.bracket else []


def visit_html(translator: HTML5Translator, node: result) -> None:
    title = {"title": node["detail"]} if node["detail"] else {}
    translator.body.append(translator.starttag(node, "span", "", **title))


def depart_html(translator: HTML5Translator, node: result) -> None:
    if node["detail"]:
        hidden = translator.encode(f" ({node['detail']})")
        translator.body.append(f'<span class="visually-hidden">{hidden}</span>')
    translator.body.append("</span>")


def ignore(translator: object, node: result) -> None:
    """Other builders show the number alone."""


def setup(app: Sphinx) -> dict[str, object]:
    app.add_node(result, html=(visit_html, depart_html), latex=(ignore, ignore), text=(ignore, ignore))
    app.add_role("result", ResultRole())
    app.add_role("result-interval", ResultIntervalRole())
    return {"version": "1", "parallel_read_safe": True}
