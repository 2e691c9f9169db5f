"""Matplotlib's SVG as a part of a page: its text and lines take the page's colours, and its ids cannot meet others."""

from __future__ import annotations

import hashlib
import re
from html import escape

# What a figure is drawn with where the page's colours shall stand: as good as the text and the lines of a white page.
INK, GRID, PAPER = "#212223", "#d4d5d6", "#fefdfc"
_OF_THE_PAGE = {
    INK: "currentColor",
    GRID: "var(--figure-grid, #8888)",
    PAPER: "var(--pst-color-background, var(--jp-layout-color0, #fff))",
}
SMALLEST = 9.0  # pixels on the screen that the smallest text of a figure has at least

_TAG = re.compile(r"<[^>]+>")
_FAMILY = re.compile(r"font: ((?:[a-z]+ |\d{3} )*)([\d.]+)px [^;\"]*")
_SIZE = re.compile(r"font-size: ([\d.]+)px")


def inline(svg: str, alt: str) -> str:
    """An SVG file as an element of a page that is as wide as the text around it.

    It scrolls in the box around it before its smallest text would be smaller than `SMALLEST`.

    Args:
        svg: as matplotlib saves it with `svg.fonttype` "none", drawn with `INK`, `GRID` and `PAPER`.
        alt: what it shows, read out in its place.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    body = _TAG.sub(lambda tag: _lean(tag[0]), body)
    body = _own_ids(body, hashlib.sha256(f"{alt}\n{svg}".encode()).hexdigest()[:8])
    body = re.sub(r">\s+<", "><", body).strip()
    for drawn, shown in _OF_THE_PAGE.items():
        body = body.replace(drawn, shown)
    sizes = [float(size) for size in _SIZE.findall(body)]
    least = round(float(width) * SMALLEST / min(sizes, default=SMALLEST))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}" '
        f'style="width:100%;height:auto;min-width:{least}px;font-family:inherit">{body}</svg>'
    )


def _lean(tag: str) -> str:
    """A tag without decimals that nobody sees, and with the font of the page."""
    if tag.startswith("<image"):
        return tag.replace("xlink:href", "href")
    tag = _FAMILY.sub(_style, tag).replace("xlink:href", "href")
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
