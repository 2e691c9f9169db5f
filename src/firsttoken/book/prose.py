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
from firsttoken.models.family import FAMILY

TAG = "own-models"


def _called(name: str, shown: str, in_sizes: bool) -> re.Pattern[str]:
    """A model by its name, its slug (in the number of a variant's record as well) or what readers call it; one of a
    family in several sizes by that without a size too, which may then be any of them."""
    own = rf"(?<![\w-])(?:{re.escape(name)}|{re.escape(slug(name))})(?!\w|-\w)"
    full = shown.removesuffix("-Instruct")
    family = rf"|{re.escape(full.rpartition('-')[0])}(?!-)" if in_sizes else ""
    return re.compile(f"{own}|{re.escape(full)}{family}")


_CALLED = {slug(name): _called(name, of.name, name in FAMILY) for name, of in NAMES.items()}
_OWN = frozenset(_CALLED)
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
