"""Prose about the book's own models, left out where a chapter is published for other models.

A chapter's text says what its default models show. On a page about another model that would be read as that model's
result. A paragraph that names a bundled or optional model, or speaks of the bundled ones, is left out there, unless
the page is about that model too; so is a cell tagged `own-models`, whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from firsttoken.files import slug
from firsttoken.model_names import NAMES

TAG = "own-models"
_OWN = frozenset(map(slug, NAMES))
# A model by its name, its slug (in the number of a variant's record as well), or what readers call it.
_CALLED = {
    slug(name): re.compile(
        rf"(?<![\w-])(?:{re.escape(name)}|{re.escape(slug(name))})(?!\w|-\w)"
        rf"|{re.escape(of.name.removesuffix('-Instruct'))}"
    )
    for name, of in NAMES.items()
}
_TWO_SIZES = re.compile(r"Qwen2\.5-Coder(?!-)")  # without a size it may be either
NOTE = "What the book says about its own models is left out on this page."


def leave_out_other_models(content: Any, models: Collection[str]) -> bool:
    """Take prose about models that are not among `models` (slugs) out of a notebook, in place.

    Returns:
        whether anything was taken out; a note then stands below the title.
    """
    cells, taken = [], False
    for cell in content.cells:
        if cell.cell_type == "markdown":
            if TAG in cell.metadata.get("tags", []):
                taken = True
                continue
            blocks = list(_blocks(cell.source))
            kept = [block for block in blocks if not _about_others(block, models)]
            taken = taken or len(kept) < len(blocks)
            cell.source = "\n\n".join(kept)
            if not cell.source.strip():
                continue
        cells.append(cell)
    content.cells = cells
    if taken:
        first = next(cell for cell in cells if cell.cell_type == "markdown")
        title, *rest = _blocks(first.source)
        first.source = "\n\n".join([title, f"*{NOTE}*", *rest])
    return taken


def _about_others(block: str, models: Collection[str]) -> bool:
    if block.startswith(("#", "```")):
        return False
    named = {name for name, called in _CALLED.items() if called.search(block)}
    if _TWO_SIZES.search(block):
        named |= {name for name in _OWN if name.startswith("qwen")}
    if named:
        return not named & set(models)
    return bool(re.search(r"\bbundled\b", block)) and not _OWN & set(models)


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, tables, headings and fenced blocks, without the empty lines between them."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        if not line.strip() and not fenced:
            if lines:
                yield "\n".join(lines)
            lines = []
            continue
        fenced = fenced != fence
        lines.append(line)
    if lines:
        yield "\n".join(lines)
