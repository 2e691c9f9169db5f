"""Matplotlib's SVG as a part of a page: its text and lines take the page's colours, and its ids cannot meet others.

Each panel becomes an element of its own, so that panels stand beside each other where there is room and below each
other where there is none, and what a figure draws is stored once for every width of screen.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# What a figure is drawn with where the page's colours shall stand: as good as the text and the lines of a white page.
INK, GRID, PAPER = "#212223", "#d4d5d6", "#fefdfc"
_OF_THE_PAGE = {
    INK: "currentColor",
    GRID: "var(--figure-grid, #8888)",
    PAPER: "var(--pst-color-background, var(--jp-layout-color0, #fff))",
}
SMALLEST = 9.0  # pixels on the screen that the text of a figure has at least
# How much larger than drawn a panel may get: beside others, and alone.
BESIDE, ALONE = 1.2, 1.5
TEXT = "key-"  # begins the id of every text of a legend, those that are not shown included
KEYS = 1.1  # how much larger than drawn the signs of a legend are

_SVG = "http://www.w3.org/2000/svg"
_TAG = re.compile(r"<[^>]+>")
_FAMILY = re.compile(r"font: ((?:[a-z]+ |\d{3} )*)([\d.]+)px [^;\"]*")
_OWN_FAMILY = re.compile(r"; font-family: [^;\"]*")  # as newer versions of matplotlib write it
_SIZE = re.compile(r"font-size: ([\d.]+)px")
_SEAM = "\0"  # between parts, in no text of a figure


@dataclass(frozen=True)
class Box:
    """A part of a drawing, in its units, from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def view(self) -> str:
        return " ".join(f"{value:.1f}" for value in (self.left, self.top, self.width, self.height))


@dataclass(frozen=True)
class Part:
    """What stands in an element of its own: the groups of these ids, cut to a box."""

    ids: Sequence[str]
    box: Box


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the sign of a group is what it holds before the text of this id."""

    group: str
    id: str
    box: Box  # of the sign
    text: str


def inline(svg: str, alt: str, parts: Sequence[Part], keys: Sequence[Key] = (), title: str = "") -> str:
    """An SVG file as elements of a page that are together as wide as the text around them.

    They go below each other, and then scroll in the box around them, before their text would be smaller than
    `SMALLEST`. The legend stands below them as text of the page.

    Args:
        svg: as matplotlib saves it with `svg.fonttype` "none", drawn with `INK`, `GRID` and `PAPER`.
        alt: what it shows, read out in its place.
        title: a line above all parts.
    """
    root = ET.fromstring(svg)
    drawing = next(child for child in root if child.get("id") == "figure_1")
    signs = _signs(drawing, keys)
    groups = {child.get("id", ""): child for child in drawing}
    shared = "".join(map(_markup, root.findall(f"{{{_SVG}}}defs")))
    bodies = ["".join(_markup(groups[name]) for name in part.ids) for part in parts]
    bodies[0] = shared + bodies[0]
    text = _SEAM.join([*bodies, *signs])
    text = _TAG.sub(lambda tag: _lean(tag[0]), text)
    text = _own_ids(text, hashlib.sha256(f"{alt}\n{svg}".encode()).hexdigest()[:8])
    text = re.sub(r">\s+<", "><", text)
    for drawn, shown in _OF_THE_PAGE.items():
        text = text.replace(drawn, shown)
    drawn_parts = text.split(_SEAM)
    elements = [
        _element(part.box, body.strip(), BESIDE if len(parts) > 1 else ALONE)
        for part, body in zip(parts, drawn_parts, strict=False)
    ]
    legend = "".join(
        f'<span style="display:flex;align-items:center;gap:.4em"><svg viewBox="{key.box.view}" '
        f'style="flex:none;width:{KEYS * key.box.width:.0f}px;overflow:visible">{body.strip()}</svg>'
        f"<span>{escape(key.text)}</span></span>"
        for key, body in zip(keys, drawn_parts[len(parts) :], strict=True)
    )
    # "safe": what does not fit begins at the left, where one can scroll to all of it.
    flow = "display:flex;flex-wrap:wrap;justify-content:safe center"
    return (
        f'<div role="img" aria-label="{escape(alt)}">'
        + (f'<div style="text-align:center;font-size:.85rem">{escape(title)}</div>' if title else "")
        + f'<div style="{flow};margin:0 auto;max-width:{_widest(parts):.0f}px">{"".join(elements)}</div>'
        + (
            f'<div style="{flow};gap:.1em 1.2em;margin-top:.3em;font-size:.85rem;line-height:1.4">{legend}</div>'
            if legend
            else ""
        )
        + "</div>"
    )


def _widest(parts: Sequence[Part]) -> float:
    """Pixels at which a row of the drawing is as large as it may get, so that rows stay what they are."""
    rows: dict[float, float] = {}
    for part in parts:
        rows[part.box.top] = rows.get(part.box.top, 0) + part.box.width
    return (BESIDE if len(parts) > 1 else ALONE) * max(rows.values()) + 1


def _element(box: Box, body: str, most: float) -> str:
    sizes = [max(map(float, _SIZE.findall(text))) for text in re.findall(r"<text.*?</text>", body) if "font-" in text]
    least = round(box.width * SMALLEST / min(sizes, default=SMALLEST))
    # A panel asks for the width it was drawn at, so that panels go below each other rather than shrink.
    asks = max(round(box.width), least)
    top = max(round(most * box.width), least)
    return (
        f'<svg viewBox="{box.view}" style="display:block;flex:{box.width:.0f} 1 {asks}px;min-width:{least}px;'
        f'max-width:{top}px;height:auto;overflow:visible;font-family:inherit">{body}</svg>'
    )


def _signs(drawing: ET.Element, keys: Sequence[Key]) -> list[str]:
    """Take the legends out of a drawing; what each key is drawn with."""
    signs = {}
    legends = {key.group for key in keys}
    for parent in list(drawing.iter()):
        for legend in [child for child in parent if child.get("id") in legends]:
            parent.remove(legend)
            sign = ""
            for child in legend:
                if child.get("id", "").startswith(TEXT):
                    signs[child.get("id", "")] = sign
                    sign = ""
                else:
                    sign += _markup(child)
    return [signs[key.id] for key in keys]


def _markup(element: ET.Element) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", ET.tostring(element, encoding="unicode"))


def _lean(tag: str) -> str:
    """A tag without decimals that nobody sees, and with the font of the page."""
    tag = tag.replace("xlink:href", "href")
    if tag.startswith("<image"):
        return tag
    tag = _OWN_FAMILY.sub("", _FAMILY.sub(_style, tag))
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def _style(font: re.Match[str]) -> str:
    parts = [f"font-size: {font[2]}px"]
    for word in font[1].split():
        parts.append(f"font-style: {word}" if word in ("italic", "oblique") else f"font-weight: {word}")
    return "; ".join(parts)


def _own_ids(body: str, prefix: str) -> str:
    """Drop the ids that nothing refers to, and give the others a name that no other figure of a page has."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda at: f' id="{prefix}-{at[1]}"' if at[1] in used else "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
