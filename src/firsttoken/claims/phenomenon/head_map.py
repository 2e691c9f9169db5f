"""The live map of heads, drawn by `head-map.js`: what it needs of a record, and the pages that it stands on.

In its chapter it is a cell's output, with all maps of one passage inside it. On a page that has more to say it is
compact and has a choice of models and passages: what every head does stands in the page, and the maps of a passage are
a file of their own, loaded when it is chosen. The file is a script, because a page that is opened without a server may
not read any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from firsttoken.estimates import JSON
from firsttoken.model_names import called
from firsttoken.plots import Display, embedded
from firsttoken.records import Record

FIRST = "a story"  # what readers know the passage of the main record by


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One passage of a compact map.

    Attributes:
        title: what readers know it by.
        values: what `measure.seen` has of it.
        maps: where the script of `maps_script` lies, from the folder of `head-map.js`.
    """

    title: str
    values: Mapping[str, Any]
    maps: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One model of a compact map.

    Attributes:
        name: what readers know it by.
        layers: the number of each row of layers.
        passages: at least one; every model has the same, in the same order.
    """

    name: str
    layers: Sequence[int]
    passages: Sequence[Seen]


def read(record: Record, others: Record | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Title and values of each passage: that of the main record, then those of the record of further passages."""
    further = others.values["passages"] if others is not None else []
    return [(FIRST, record.values), *((values["title"], values) for values in further)]


def described(values: Mapping[str, Any]) -> JSON:
    """What is known of each head on a passage without its map: tokens, attention to the first."""
    return {key: values[key] for key in ("tokens", "alpha", "strongest")}


def whole(record: Record, static: Display) -> Display:
    """The map of one model with all that belongs to it.

    Args:
        static: what is shown where no script runs.
    """
    shown = {
        "model": called(record),
        "layers": record.layer_numbers(len(record.values["alpha"])),
        "passages": [described(record.values) | {"title": FIRST, "maps": record.values["maps"]}],
    }
    label = f"Attention of every head of {called(record)} to the first token"
    return Display(_element(label, static, shown), static.text, static.more)


def compact(choices: Sequence[Choice], static: Display) -> str:
    """The HTML of a map with a choice of models and passages, the first of each shown at the beginning."""
    shown: list[JSON] = [
        {
            "model": choice.name,
            "layers": list(choice.layers),
            "passages": [
                described(seen.values)
                | {"title": seen.title, "source": seen.maps, "caption": caption(seen.values, choice.name)}
                for seen in choice.passages
            ],
        }
        for choice in choices
    ]
    return _element("Attention of every head of a model to the first token", static, shown, "compact")


def caption(values: Mapping[str, Any], name: str) -> str:
    """The one thing to take away from all heads together on a passage."""
    return (
        f"Each square is a head of {name}: point at it or tap it. Together they give the first token of this passage "
        f"{values['mass']:.0%} of their attention; an even share would be {values['even']:.0%}."
    )


def maps_script(values: Mapping[str, Any]) -> str:
    """The text of the file that a compact map loads for one passage."""
    return f"document.currentScript.maps = {json.dumps(values['maps'], separators=(',', ':'))};\n"


def _element(label: str, static: Display, shown: JSON | list[JSON], *classes: str) -> str:
    return (
        f'<div class="{" ".join(("head-map", "themed", *classes))}" role="group" aria-label="{escape(label)}">'
        f'<div class="head-map-static">{static.html}</div>'
        f"{embedded(shown, ensure_ascii=False)}</div>"
    )
