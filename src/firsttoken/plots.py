"""Figures and tables that work in both themes of the book, on a phone, offline and for a screen reader.

A chapter ends a cell with one of three calls:

* `figure(draw, alt, caption)`   a matplotlib or seaborn figure, numbered by the page, its colours those of the theme;
* `interactive(fig, alt)`   a plotly figure, stored as its specification and drawn by the book's own script;
* `table(rows, columns, caption)`   an HTML table that scrolls inside its own box.

Each returns a `Display`, which also looks right in JupyterLab.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes

from firsttoken.errors import FirstTokenError
from firsttoken.figure_data import as_csv
from firsttoken.figure_parts import columns_of, in_parts, save, stand_alone
from firsttoken.inline_svg import GRID, INK
from firsttoken.ticks import plain_powers

if TYPE_CHECKING:
    import plotly.graph_objects as go

# All are at least 3:1 against both page backgrounds and apart for the common forms of colour blindness (tested).
# A model has one of the first through the whole book; what is no model has one of the second, and a marker or a dash.
MODELS = ("#783cf0", "#e0760b", "#c46cf0", "#d80060", "#5088b8")
CATEGORIES = ("#29a38f", "#c2280a", "#436b94", "#307050")
NEUTRAL = "#7f7f7f"
# Inches: of a figure that fits beside the contents of a page, and of a panel that fits on a telephone; more is cut.
WIDEST, NARROW = 8.2, 4.65
BACKGROUNDS = {"light": "#ffffff", "dark": "#121212"}
# Matplotlib and plotly both know it; it is monotonic in lightness, so it also works in grey.
COLORMAP = "viridis"

_FIXED = {
    "smollm2-135m": MODELS[0],
    "gemma3-270m": MODELS[1],
    "qwen2-5-coder-0-5b": MODELS[2],
    "qwen2-5-coder-1-5b": MODELS[4],
}


def model_color(slug: str) -> str:
    """The colour of a model, the same in every figure of the book and in every run."""
    others = MODELS[2:]
    return _FIXED.get(slug, others[zlib.crc32(slug.encode()) % len(others)])


@dataclass(frozen=True)
class Display:
    """Something to show at the end of a notebook cell: HTML, a plain-text stand-in, other formats."""

    html: str
    text: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": self.text, **self.more}


def _required(alt: str) -> str:
    if not alt.strip():
        raise FirstTokenError("This figure has no description; pass `alt`, one sentence saying what it shows.")
    return " ".join(alt.split())


def _rc() -> Any:
    axes = ("axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return {
        **dict.fromkeys(("text.color", "legend.labelcolor", *axes), INK),
        **dict.fromkeys(clear, "none"),
        "axes.edgecolor": GRID,
        "grid.color": GRID,
        "legend.edgecolor": GRID,
        "axes.prop_cycle": cycler(color=CATEGORIES),
        "image.cmap": COLORMAP,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.dpi": 72,  # as that of an SVG, so that what is measured is what is drawn
        "font.size": 10,
        "svg.fonttype": "none",
        # Without a fixed salt, the ids inside the SVG differ from run to run.
        "svg.hashsalt": "firsttoken",
    }


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What pointing at a heat map says: "x: column, y: row, value: text of the cell"."""

    x: str  # what the columns are
    y: str  # what the rows are
    value: str
    columns: Sequence[object]
    rows: Sequence[object]  # from the top of the picture to its bottom
    texts: Sequence[Sequence[str]]  # (row, column)


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Panels of one size, such as one for each model, at most two beside each other."""

    count: int
    height: float  # of each, in inches

    def subplots(self) -> dict[str, Any]:
        """How they lie, for `plt.subplots`."""
        ncols = min(self.count, 2)
        nrows = -(-self.count // ncols)
        return {"ncols": ncols, "nrows": nrows, "squeeze": False, "figsize": (WIDEST, self.height * nrows)}


def figure(
    draw: Callable[[Any], object],
    alt: str,
    caption: str = "",
    cells: Sequence[Cells] = (),
    panels: Panels | None = None,
    wide: bool = False,
    **subplots: Any,
) -> Display:
    """Draw a static figure with a numbered caption below it.

    On a page its columns go below each other where the screen is narrow, and its legends, wherever they are drawn,
    stand below it.

    Args:
        draw: called with what `plt.subplots` returned as axes (one, or an array of them). It must not fix text or
            background colours, and must draw the same thing each time.
        alt: what the figure shows, for those who cannot see it; required.
        caption: what it shows and the one thing to take away, its numbers from the record; `alt` if none is given.
        panels: draw on so many axes, given as an array; in place of `nrows`, `ncols` and `figsize`.
        cells: of each heat map (`imshow`) in the order of drawing, what is shown where the reader points. Such a
            figure stays in one piece.
        wide: a single column that needs more than a telephone has, such as the picture of the README.
        **subplots: passed to `plt.subplots`, for example `nrows`, `figsize`, `sharex`.
    """
    alt = _required(alt)
    with mpl.rc_context(_rc()):
        laid_out = subplots if panels is None else {**subplots, **panels.subplots()}
        fig, axes = plt.subplots(**{"layout": "constrained", **laid_out})
        columns = columns_of(fig)
        fig.set_figwidth(min(fig.get_figwidth(), WIDEST if columns > 1 or wide else NARROW))
        try:
            if panels is None:
                draw(axes)
            else:
                _draw_panels(draw, axes, panels.count)
            numbers = as_csv(fig)  # before labels move
            if columns > 1 and not cells:
                stand_alone(fig)
            plain_powers(fig)
            png = save(fig, "png", dpi=150, facecolor="white", bbox_inches="tight")
            drawing = in_parts(fig, alt, split=columns > 1 and not cells)
        finally:
            plt.close(fig)
    script = ""
    if cells:
        script = embedded([vars(of) for of in cells], ensure_ascii=False, default=list)
    text = " ".join((caption or alt).split())
    html = (
        f'<figure class="drawn themed"><div class="figure-scroll" tabindex="0">{drawing}</div>{script}'
        f"<figcaption>{escape(text if text.endswith('.') else text + '.')}</figcaption>"
        f'<template class="figure-data">{escape(numbers)}</template></figure>'
    )
    return Display(html, f"[figure] {alt}", {"image/png": base64.b64encode(png).decode()})


def _draw_panels(draw: Callable[[Any], object], grid: Any, count: int) -> None:
    """Draw on the first `count` axes; the others do not show."""
    for ax in grid.ravel()[count:]:
        ax.set_axis_off()
    draw(grid.ravel()[:count])


def interactive(fig: go.Figure, alt: str, height: int = 420) -> Display:
    """Show a plotly figure; in the book it is drawn by `plotly-lazy.js`, from files of the book itself.

    Colours of text, grid and background follow the page's theme, so the figure must not set them. Its
    template is dropped for the same reason: set the colours of traces yourself (`COLORMAP`, `model_color`).

    Args:
        alt: what the figure shows; required. It is also the text shown where no script runs.
        height: in pixels, on every screen width.
    """
    alt = _required(alt)
    spec = json.loads(fig.to_json() or "{}")
    spec["layout"] = {**spec.get("layout", {}), "height": height}
    spec["layout"].pop("template", None)
    html = (
        f'<div class="plotly-lazy themed" role="figure" aria-label="{escape(alt)}" style="min-height:{height}px">'
        f'<p class="plotly-alone">{escape(alt)}</p>{embedded(spec, sort_keys=True)}</div>'
    )
    return Display(html, f"[interactive figure] {alt}", {"application/vnd.plotly.v1+json": spec})


def embedded(content: Any, **options: Any) -> str:
    """Data as a JSON element of a page, for a script to read; `options` are those of `json.dumps`."""
    # "</" would end the element early.
    text = json.dumps(content, separators=(",", ":"), **options).replace("</", "<\\/")
    return f'<script type="application/json">{text}</script>'


def reach(*estimates: Mapping[str, float]) -> list[list[float]]:
    """How far the interval of each estimate reaches below and above its value: `xerr` or `yerr` of an error bar."""
    return [[e["value"] - e["low"] for e in estimates], [e["high"] - e["value"] for e in estimates]]


LONG = 12  # rows; longer tables are opened by their captions
_NUMBER = re.compile(r"[-+−<>≈ ]*\d[\d., ]*(e[-+]?\d+)?\s*%?")


def table(rows: Sequence[Sequence[object]], columns: Sequence[str], caption: str, *, folds: bool = True) -> Display:
    """Show a table; every cell is text and is escaped, and the first cell of a row is its header.

    Args:
        rows: one sequence of cells for each row, as long as `columns`.
        caption: what the table lists; shown above it and read out as its name; required.
        folds: whether a reader opens a table of more than `LONG` rows by its caption, and passes it by otherwise.
    """
    caption = _required(caption)
    if bad := [row for row in rows if len(row) != len(columns)]:
        raise FirstTokenError(f"The table '{caption}' has {len(columns)} columns, but a row with {len(bad[0])} cells.")

    def cell(position: int, value: object) -> str:
        text = str(value)
        number = ' class="number"' if _NUMBER.fullmatch(text) else ""
        return f"<td{number}>{escape(text)}</td>" if position else f'<th scope="row">{escape(text)}</th>'

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(cell(i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    folded = folds and len(rows) > LONG
    shown = "" if folded else f"<caption><span>{escape(caption)}</span></caption>"
    html = (
        f'<div class="table-scroll themed" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table class="table" aria-label="{escape(caption)}">{shown}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    if folded:
        summary = f"<summary><strong>{escape(caption)}</strong> ({len(rows)} rows)</summary>"
        html = f'<details class="folded long-table">{summary}{html}</details>'
    text = "\n".join(" | ".join(map(str, row)) for row in (columns, *rows))
    return Display(html, f"{caption}\n{text}")


Estimates = Sequence[Mapping[str, float]]


def band(ax: Axes, x: Sequence[float], estimates: Estimates, **line: Any) -> None:
    """A line through estimates with its 95 % interval as a band."""
    ax.plot(x, [e["value"] for e in estimates], **line)
    low, high = [e["low"] for e in estimates], [e["high"] for e in estimates]
    ax.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows of a panel, the first at the top, inside it and above what is drawn at 0, 1, 2 and so on: beside
    the panel, long names would leave it no room on a telephone."""
    for place, name in enumerate(names):
        ax.text(0.015, place - 0.2, name, transform=ax.get_yaxis_transform(), va="bottom", fontsize=9)
        if place:
            ax.axhline(place - 0.62, color=GRID, linewidth=0.5)
    ax.set_yticks([])
    ax.set_ylim(len(names) - 0.62, -0.62)
