"""The list of references in the order of authors, each by the words that the text cites it with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style as Unsorted
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx

NAME = "author_year_words"


class Labels(BaseLabelStyle):
    """Family names and year: "Gu et al., 2025"; works of one author and year have a letter in their `year`."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        for entry in sorted_entries:
            names = [" ".join(person.rich_last_names[0].__str__().split()) for person in entry.persons["author"]]
            who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
            yield f"{who}, {entry.fields['year']}"


class Style(Unsorted):
    """As `unsrt`, but in order and with labels in words."""

    default_label_style = NAME
    default_sorting_style = "author_year_title"


def setup(app: Sphinx) -> dict[str, object]:
    register_plugin("pybtex.style.labels", NAME, Labels, force=True)
    register_plugin("pybtex.style.formatting", NAME, Style, force=True)
    return {"version": "1", "parallel_read_safe": True}
