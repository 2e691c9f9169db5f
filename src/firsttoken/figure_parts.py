"""A matplotlib figure in parts: its panels, colour bars and legends, each an element of the page that holds it.

Panels stand below each other where a screen is narrow, so each shows by itself what it shared; legends become text of
the page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from firsttoken.inline_svg import TEXT, Box, Key, Part, inline


def save(fig: Figure, form: str, **options: Any) -> bytes:
    """The file of a figure, `svg` or `png`, without the date and the program that made it."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    fig.savefig(buffer, format=form, metadata=metadata, **options)
    return buffer.getvalue()


def columns_of(fig: Figure) -> int:
    """How many panels stand beside each other, those that show nothing counted."""
    return max(_place(ax)[1] for ax in fig.axes) + 1


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


def stand_alone(fig: Figure) -> None:
    """Give each panel what it shares with the first of its row, because it may stand below it instead of beside it."""
    panels = _shown(fig)
    for (row, _), (ax, *_) in sorted(panels.items()):
        first = next(axes[0] for (of, _), axes in sorted(panels.items()) if of == row)
        top = panels[min(panels)][0]
        ax.set_ylabel(ax.get_ylabel() or first.get_ylabel() or top.get_ylabel())
        if ax.get_shared_y_axes().joined(ax, first):
            ax.tick_params(axis="y", labelleft=True)


def in_parts(fig: Figure, alt: str, split: bool) -> str:
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
    svg = save(fig, "svg").decode()  # places everything, so what follows comes after it
    ids = [[names[ax] for ax in sorted(group, key=lambda ax: ax.zorder)] for group in groups]
    extents = [Bbox.union([box for ax in group if (box := ax.get_tightbbox())]) for group in groups]
    if not split:
        parts = [Part([name for of in ids for name in of], _box(fig, Bbox.union(extents)))]
    else:
        parts = [Part(names, _box(fig, box)) for names, box in zip(ids, _cut(list(panels), extents), strict=True)]
    keys = [
        Key(group, name, _sign(fig, legend, text), words)
        for group, (legend, entries) in legends.items()
        for name, (text, words) in entries.items()
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
        entries = {}
        for entry, text in enumerate(legend.get_texts()):
            text.set_gid(name := f"{TEXT}{number}-{entry}")
            words = " ".join(text.get_text().split())
            text.set_text("|")
            if words not in seen:
                entries[name] = text, words
            seen.add(words)
        legend.set_visible(bool(entries))
        taken[group] = legend, entries
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
