"""The live map of heads, drawn by `head-map.js`: what it needs of a record, and the pages that it stands on.

In its chapter it is a cell's output, with all maps inside it. On a page that has more to say it is compact: what every
head does stands in the page, and the maps of a model are a file of their own, loaded when that model is chosen. The
file is a script, because a page that is opened without a server may not read any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from firsttoken.estimates import JSON
from firsttoken.plots import Display, embedded
from firsttoken.records import Record


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One model of a compact map.

    Attributes:
        name: what readers know it by.
        maps: where the script of `maps_script` lies, from the folder of `head-map.js`.
    """

    record: Record
    name: str
    maps: str


def described(record: Record, name: str) -> JSON:
    """What is known of each head without its map: tokens, attention to the first, numbers of layers."""
    values = record.values
    return {key: values[key] for key in ("tokens", "alpha", "strongest")} | {
        "model": name,
        "layers": record.layer_numbers(len(values["alpha"])),
    }


def whole(record: Record, static: Display) -> Display:
    """The map of one model with all that belongs to it.

    Args:
        static: what is shown where no script runs.
    """
    data = described(record, record.model) | {"maps": record.values["maps"]}
    label = f"Attention of every head of {record.model} to the first token"
    return Display(_element(label, static, data), static.text, static.more)


def compact(choices: Sequence[Choice], static: Display) -> str:
    """The HTML of a map with a choice of models, the first of them shown at the beginning."""
    data = [
        described(choice.record, choice.name) | {"source": choice.maps, "caption": caption(choice.record, choice.name)}
        for choice in choices
    ]
    return _element("Attention of every head of a model to the first token", static, data, "compact")


def caption(record: Record, name: str) -> str:
    """The one thing to take away from all heads together."""
    mass, even = record.values["mass"], record.values["even"]
    return (
        f"Each square is a head of {name}: point at it or tap it. Together they give the first token of this passage "
        f"{mass:.0%} of their attention; an even share would be {even:.0%}."
    )


def maps_script(record: Record) -> str:
    """The text of the file that a compact map loads for one model."""
    return f"document.currentScript.maps = {json.dumps(record.values['maps'], separators=(',', ':'))};\n"


def _element(label: str, static: Display, data: JSON | list[JSON], *classes: str) -> str:
    return (
        f'<div class="{" ".join(("head-map", "themed", *classes))}" role="group" aria-label="{escape(label)}">'
        f'<div class="head-map-static">{static.html}</div>'
        f"{embedded(data, ensure_ascii=False)}</div>"
    )
