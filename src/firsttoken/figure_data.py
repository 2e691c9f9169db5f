"""The numbers that a matplotlib figure draws, as text: what a reader downloads from below it.

One row a mark. `panel` and `series` are the words that the figure itself uses, its titles, labels and legend.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

COLUMNS = ("panel", "series", "mark", "x", "y", "to")
Row = tuple[str, str, str, object, object, object]


def as_csv(fig: Figure) -> str:
    """All marks of a figure that stand for numbers, as CSV with the columns `COLUMNS`.

    `mark` is `point` (of a line or by itself), `bar` (its place and where it ends), `interval` (`y` to `to` at `x`) or
    `cell` (column `x` and row `y` of a heat map, its value in `to`). A place on an axis that has words has the word.
    """
    rows = [row for number, ax in enumerate(_panels(fig), 1) for row in _of_panel(ax, _called(ax, number))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*map(_plain, row[:3]), *map(_number, row[3:])] for row in rows)
    return text.getvalue()


def _panels(fig: Figure) -> list[Axes]:
    return [ax for ax in fig.axes if ax.axison and ax.get_label() != "<colorbar>"]


def _called(ax: Axes, number: int) -> str:
    return ax.get_title() or ax.get_ylabel() or f"panel {number}"


def _of_panel(ax: Axes, panel: str) -> Iterator[Row]:
    words = {name: _words(ax, name) for name in "xy"}
    series = {id(handle): label for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}

    def placed(x: float, y: float) -> tuple[object, object]:
        return words["x"].get(x, x), words["y"].get(y, y)

    for container in ax.containers:
        for artist in container.get_children():
            series.setdefault(id(artist), _shown(container.get_label()))
    for line in ax.lines:
        if _spans_the_panel(ax, line):
            continue
        for x, y in np.asarray(line.get_xydata()):
            yield panel, series.get(id(line), _shown(line.get_label())), "point", *placed(x, y), ""
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_width() and patch.get_height():
            yield panel, series.get(id(patch), _shown(patch.get_label())), "bar", *_bar(patch, words), ""
    for collection in ax.collections:
        label = series.get(id(collection), _shown(collection.get_label()))
        if isinstance(collection, PathCollection):
            for x, y in np.asarray(collection.get_offsets()):
                yield panel, label, "point", *placed(x, y), ""
        elif isinstance(collection, LineCollection):
            for segment in map(np.asarray, collection.get_segments()):
                (x, low), (_, high) = segment[0], segment[-1]
                yield panel, label, "interval", words["x"].get(x, x), low, high
        elif isinstance(collection, PolyCollection):
            for vertices in (np.asarray(path.vertices) for path in collection.get_paths()):
                for x in np.unique(vertices[:, 0]):
                    ends = vertices[vertices[:, 0] == x, 1]
                    yield panel, label, "interval", words["x"].get(x, x), ends.min(), ends.max()
        elif isinstance(collection, QuadMesh):
            yield from _cells(panel, label, np.ma.asarray(collection.get_array()), words)
    for image in ax.images:
        yield from _cells(panel, _shown(image.get_label()), np.ma.asarray(image.get_array()), words)


def _bar(bar: Rectangle, words: dict[str, dict[float, str]]) -> tuple[object, object]:
    """Place and end, along whichever axis it grows."""
    middle_x, middle_y = bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2
    if middle_y in words["y"] and middle_x not in words["x"]:
        return bar.get_x() + bar.get_width(), words["y"][middle_y]
    return words["x"].get(middle_x, middle_x), bar.get_y() + bar.get_height()


def _cells(panel: str, series: str, values: np.ma.MaskedArray, words: dict[str, dict[float, str]]) -> Iterator[Row]:
    if values.ndim != 2:
        return
    for (row, column), value in np.ndenumerate(values.filled(np.nan)):
        if not np.isnan(value):
            yield panel, series, "cell", words["x"].get(column, column), words["y"].get(row, row), value


def _words(ax: Axes, name: str) -> dict[float, str]:
    """What stands at the ticks of an axis where that are words and no numbers."""
    axis = ax.xaxis if name == "x" else ax.yaxis
    places = axis.get_ticklocs()
    # Of the axis, not of what is drawn: beside a panel with the same words there are none.
    at_ticks = zip(places, axis.get_major_formatter().format_ticks(list(places)), strict=True)
    return {float(place): text for place, text in at_ticks if any(letter.isalpha() for letter in _plain(text))}


def _spans_the_panel(ax: Axes, line: Line2D) -> bool:
    """Whether a line is one of `axhline` or `axvline`, which marks a place and shows no measurement."""
    return line.get_transform() != ax.transData


def _shown(label: object) -> str:
    """A label that a legend would show; matplotlib's own begin with a line."""
    return "" if str(label).startswith("_") else str(label)


def _plain(text: object) -> str:
    return " ".join(str(text).replace("$", "").split())


def _number(value: object) -> object:
    if isinstance(value, str):
        return _plain(value)
    return f"{float(value):.6g}"  # type: ignore[arg-type]
