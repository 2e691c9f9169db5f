"""Panels and legends as parts of a page: they fit a column and a telephone, and lose nothing that they shared."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bs4 import Tag

from drawn import drawing
from firsttoken import plots

ALT = "Panels"


def sizes(part: Tag) -> dict[str, float]:
    """Width of a panel's drawing, and the least and the most pixels that it may take."""
    limits = re.search(r"flex:\d+ 1 (\d+)px;min-width:(\d+)px;max-width:(\d+)px", str(part["style"]))
    assert limits
    return {
        "drawn": float(str(part["viewbox"]).split()[2]),
        **dict(zip(("asks", "least", "most"), map(float, limits.groups()), strict=True)),
    }


COLUMN, PHONE = 688, 342  # pixels for a figure at 1280 and at 390


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_row_fits_the_column_and_a_panel_fits_a_telephone(columns: int, scale: str) -> None:
    def plot(axes: Any) -> None:
        for ax in np.ravel(axes):
            ax.plot([1e-7, 1], [1e-7, 1], label="here")
            ax.set(xscale=scale, yscale=scale, xlabel="one", ylabel="another")

    svgs = drawing(plots.figure(plot, ALT, ncols=columns, nrows=2, figsize=(11, 5), sharey=True)).find_all(
        "svg", style=re.compile("min-width")
    )
    assert len(svgs) == (2 * columns if columns > 1 else 1)
    limits = [sizes(svg) for svg in svgs[:columns]]
    assert sum(of["asks"] for of in limits) <= COLUMN
    assert limits[0]["least"] <= PHONE
    if columns > 1:
        assert sum(of["most"] for of in limits) >= COLUMN
        assert sum(of["asks"] for of in limits) > PHONE, "so they go below each other"


def test_a_panel_that_goes_below_another_keeps_its_axis() -> None:
    def plot(axes: Any) -> None:
        axes[0].set_ylabel("shared")
        axes[0].plot([0, 1], [0, 3])

    svgs = drawing(plots.figure(plot, ALT, ncols=2, sharey=True)).find_all("svg")
    for svg in svgs:
        words = {text.get_text(strip=True) for text in svg.find_all("text")}
        assert {"shared", "3.0"} <= words


def test_legends_of_all_panels_are_one_and_keep_their_signs() -> None:
    def plot(axes: Any) -> None:
        for number, ax in enumerate(axes):
            for color in plots.CATEGORIES[: 2 + number]:
                ax.plot([0, 1], [0, 1], color=color, marker="o", label=color)
            ax.legend()

    drawn = drawing(plots.figure(plot, ALT, ncols=2))
    entries = drawn.find_all("span", style=re.compile("flex"))
    assert [entry.get_text() for entry in entries] == list(plots.CATEGORIES[:3])
    for entry, color in zip(entries, plots.CATEGORIES, strict=False):
        assert {color} == set(re.findall(r"#[0-9a-f]{6}\b", str(entry.svg)))


def test_a_legend_wider_than_its_figure_keeps_its_signs() -> None:
    def plot(ax: Any) -> None:
        for number in range(4):
            ax.plot([0, 1], [0, number], label=f"{number}: " + "a long name " * 5)
        ax.figure.legend(loc="outside lower center", ncols=4)

    signs = [entry.svg for entry in drawing(plots.figure(plot, ALT)).find_all("span", style=re.compile("flex"))]
    assert len(signs) == 4
    assert all(path.get("d") for sign in signs for path in sign.find_all("path"))
