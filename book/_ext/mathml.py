"""Formulas as MathML, which every browser draws without a script."""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOG = logging.getLogger(__name__)
# Commands that docutils does not know, by what looks the same in MathML, where brackets grow by themselves.
SAME = {r"\dots": r"\ldots", r"\Big": "", r"\big": "", r"\bigl": "", r"\bigr": ""}


def mathml(formula: str, block: bool) -> str:
    """A formula in LaTeX as one MathML element. Raises docutils' `MathError` for a command that it does not know."""
    known = re.sub(r"\\[A-Za-z]+", lambda command: SAME.get(command[0], command[0]), formula)
    return str(tex2mathml(known.strip(), as_block=block))


def _draw(translator: HTML5Translator, node: nodes.Element, block: bool) -> None:
    formula = node.astext()
    try:
        drawn = mathml(formula, block)
    except MathError as error:
        LOG.warning("The formula %r cannot be drawn: %s", formula, error, location=node)
        drawn = f"<code>{translator.encode(formula)}</code>"
    name = "div" if block else "span"
    box = ' tabindex="0" role="group" aria-label="formula"' if block else ""
    translator.body.append(f'<{name} class="math notranslate"{box}>{drawn}</{name}>')
    raise nodes.SkipNode


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    _draw(translator, node, block=False)


def displayed(translator: HTML5Translator, node: nodes.math_block) -> None:
    _draw(translator, node, block=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
