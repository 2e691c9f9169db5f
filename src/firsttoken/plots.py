"""Figures and tables that work in both themes of the book, on a phone, offline and for a screen reader.

A chapter ends a cell with one of three calls:

* `figure(draw, alt, caption)`   a matplotlib or seaborn figure, numbered by the page, its colours those of the theme;
* `interactive(fig, alt)`   a plotly figure, stored as its specification and drawn by the book's own script;
* `table(rows, columns, caption)`   an HTML table that scrolls inside its own box.

Each returns a `Display`, which also looks right in JupyterLab.
"""

from __future__ import annotations

import base64
import io
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
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import Formatter, FuncFormatter, LogFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from firsttoken.errors import FirstTokenError
from firsttoken.figure_data import as_csv
from firsttoken.inline_svg import GRID, INK, TEXT, Box, Key, Part, inline

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


def _save(fig: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    fig.savefig(buffer, format=form, metadata=metadata, **options)
    return buffer.getvalue()


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
        columns = max(_place(ax)[1] for ax in fig.axes) + 1
        fig.set_figwidth(min(fig.get_figwidth(), WIDEST if columns > 1 or wide else NARROW))
        try:
            if panels is None:
                draw(axes)
            else:
                _draw_panels(draw, axes, panels.count)
            numbers = as_csv(fig)  # before labels move
            if columns > 1 and not cells:
                _stand_alone(fig)
            _plain_powers(fig)
            png = _save(fig, "png", dpi=150, facecolor="white", bbox_inches="tight")
            drawing = _in_parts(fig, alt, split=columns > 1 and not cells)
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


def _place(ax: Axes) -> tuple[int, int]:
    """Row and column of the grid."""
    spec = ax.get_subplotspec()
    return (spec.rowspan.start, spec.colspan.start) if spec else (0, 0)


def _shown(fig: Figure) -> dict[tuple[int, int], list[Axes]]:
    """The panels that show something, by row and column, each with its twins and its own colour bar."""
    panels: dict[tuple[int, int], list[Axes]] = {}
    for ax in fig.axes:
        if ax.get_subplotspec() and (ax.axison or ax.has_data() or ax.texts):
            panels.setdefault(_place(ax), []).append(ax)
    for bar in _bars(fig):
        owners = [axes for axes in panels.values() if any(bar in getattr(ax, "_colorbars", ()) for ax in axes)]
        if len(owners) == 1:
            owners[0].append(bar)
    return panels


def _bars(fig: Figure) -> list[Axes]:
    return [ax for ax in fig.axes if not ax.get_subplotspec()]


def _stand_alone(fig: Figure) -> None:
    """Give each panel what it shares with the first of its row, because it may stand below it instead of beside it."""
    panels = _shown(fig)
    for (row, _), (ax, *_) in sorted(panels.items()):
        first = next(axes[0] for (of, _), axes in sorted(panels.items()) if of == row)
        top = panels[min(panels)][0]
        ax.set_ylabel(ax.get_ylabel() or first.get_ylabel() or top.get_ylabel())
        if ax.get_shared_y_axes().joined(ax, first):
            ax.tick_params(axis="y", labelleft=True)


class _PlainPowers(Formatter):
    """The ticks of a logarithmic axis as plain text, whose raised numbers are no smaller than the rest."""

    def __init__(self, given: Formatter) -> None:
        self.given = given

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self.given.set_axis(axis)

    def set_locs(self, locs: Any) -> None:
        self.given.set_locs(locs)

    def __call__(self, x: float, pos: int | None = None) -> str:
        if not self.given(x, pos):
            return ""
        return power(x)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(x: float) -> str:
    """A number of one digit that counts as text, such as 0.02, 3000 or 2·10⁻⁶."""
    if x == 0 or 0.001 <= abs(x) < 10_000:
        return f"{float(f'{x:.0e}'):g}".replace("-", "−")
    mantissa, _, exponent = f"{x:.0e}".partition("e")
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    return {"1": raised, "-1": f"−{raised}"}.get(mantissa, f"{mantissa.replace('-', '−')}·{raised}")


def _plain_powers(fig: Figure) -> None:
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for get, put in (
                (axis.get_major_formatter, axis.set_major_formatter),
                (axis.get_minor_formatter, axis.set_minor_formatter),
            ):
                if isinstance(given := get(), LogFormatter):
                    put(_PlainPowers(given))


def _in_parts(fig: Figure, alt: str, split: bool) -> str:
    """The figure as elements of a page: its panels if they are to be `split`, its colour bars, its legends."""
    legends = _take_legends(fig)
    title = fig.get_suptitle()
    fig.suptitle("")
    panels = _shown(fig)
    groups = list(panels.values())
    groups += [[bar] for bar in _bars(fig) if not any(bar in group for group in groups)]
    names = {ax: f"panel-{number}" for number, ax in enumerate(fig.axes)}
    for ax, name in names.items():
        ax.set_gid(name)
    svg = _save(fig, "svg").decode()  # places everything, so what follows comes after it
    ids = [[names[ax] for ax in sorted(group, key=lambda ax: ax.zorder)] for group in groups]
    extents = [Bbox.union([box for ax in group if (box := ax.get_tightbbox())]) for group in groups]
    if not split:
        parts = [Part([name for of in ids for name in of], _box(fig, Bbox.union(extents)))]
    else:
        parts = [Part(names, _box(fig, box)) for names, box in zip(ids, _cut(list(panels), extents), strict=True)]
    keys = [
        Key(group, name, _sign(fig, legend, text), words)
        for group, (legend, texts) in legends.items()
        for name, (text, words) in texts.items()
    ]
    return inline(svg, alt, parts, keys, title)


def _take_legends(fig: Figure) -> dict[str, tuple[Legend, dict[str, tuple[Text, str]]]]:
    """The legends and the texts to show, each once, by their ids; they take no room among the panels any more.

    Only their signs are drawn, with a stroke in the place of each text: whole, a legend could be wider than the
    figure, and what lies outside is not drawn.
    """
    legends = [*fig.legends, *(legend for ax in fig.axes if (legend := ax.get_legend()))]
    seen: set[str] = set()
    taken: dict[str, tuple[Legend, dict[str, tuple[Text, str]]]] = {}
    for number, legend in enumerate(legends):
        legend.set_gid(group := f"legend-{number}")
        legend.set_frame_on(False)
        legend.set_in_layout(False)
        legend.set_title("")
        # A place inside; "outside" ones keep room free, and the best one takes long to find.
        legend.set_bbox_to_anchor((0, 0, 1, 1))
        legend.set_loc("upper left")
        texts = {}
        for entry, text in enumerate(legend.get_texts()):
            text.set_gid(name := f"{TEXT}{number}-{entry}")
            words = " ".join(text.get_text().split())
            text.set_text("|")
            if words not in seen:
                texts[name] = text, words
            seen.add(words)
        legend.set_visible(bool(texts))
        taken[group] = legend, texts
    return taken


def _cut(places: Sequence[tuple[int, int]], extents: Sequence[Bbox]) -> list[Bbox]:
    """Boxes that divide the figure between its panels, so that those of a row are equally high, and beyond the
    panels what each other thing takes."""
    of_row: dict[int, list[Bbox]] = {}
    of_column: dict[int, list[Bbox]] = {}
    for (row, column), extent in zip(places, extents, strict=False):
        of_row.setdefault(row, []).append(extent)
        of_column.setdefault(column, []).append(extent)
    columns = {number: Bbox.union(boxes) for number, boxes in of_column.items()}
    ends = {}
    for number, box in columns.items():
        left, right = columns.get(number - 1), columns.get(number + 1)
        ends[number] = ((left.x1 + box.x0) / 2 if left else box.x0, (box.x1 + right.x0) / 2 if right else box.x1)
    boxes = []
    for row, column in places:
        high = Bbox.union(of_row[row])
        boxes.append(Bbox.from_extents(ends[column][0], high.y0, ends[column][1], high.y1))
    return [*boxes, *extents[len(places) :]]


def _box(fig: Figure, extent: Bbox, pad: float = 3) -> Box:
    """A place on the canvas, from its upper left corner, with some air around it."""
    top = fig.bbox.height - extent.y1
    return Box(extent.x0 - pad, top - pad, extent.width + 2 * pad, extent.height + 2 * pad)


def _sign(fig: Figure, legend: Legend, text: Text) -> Box:
    """Where the sign before a text of a legend is drawn."""
    size = float(text.get_fontsize())
    label = _box(fig, text.get_window_extent(), pad=1)
    width = (legend.handlelength + legend.handletextpad) * size
    return Box(label.left + 1 - width, label.top, legend.handlelength * size, label.height)


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


def numbering(numbers: Sequence[int]) -> FuncFormatter:
    """Labels for an axis along the rows of a result: the number of the row's layer, nothing between rows."""

    def label(at: float, _: object) -> str:
        row = round(at)
        return str(numbers[row]) if abs(at - row) < 1e-6 and 0 <= row < len(numbers) else ""

    return FuncFormatter(label)


def whole_numbers(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
