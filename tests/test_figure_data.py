"""The numbers that figures draw, read back from what is downloaded: against the numbers that were drawn."""

from __future__ import annotations

import io
import re
from html import unescape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from firsttoken import plots
from firsttoken.figure_data import COLUMNS, as_csv


def table(fig: Any) -> pd.DataFrame:
    frame = pd.read_csv(io.StringIO(as_csv(fig)), keep_default_na=False)
    plt.close(fig)
    assert tuple(frame.columns) == COLUMNS
    return frame


def test_lines_points_and_bands() -> None:
    fig, axes = plt.subplots(ncols=2)
    x = np.arange(4.0)
    axes[0].plot(x, x**2, label="squares")
    axes[0].plot(x, -x)
    axes[0].axhline(0.5)
    axes[0].set_title("left")
    axes[1].scatter(x, x + 1, label="dots")
    axes[1].fill_between(x, x - 1, x + 2, alpha=0.2)
    axes[1].vlines([1.0], [0.25], [0.75])
    axes[1].set_ylabel("right $x$")
    frame = table(fig)
    squares = frame[frame.series == "squares"]
    assert squares.panel.unique().tolist() == ["left"]
    assert squares.y.astype(float).tolist() == [0, 1, 4, 9]
    assert len(frame[(frame.panel == "left")]) == 8, "a line that marks a place is no measurement"
    assert frame[frame.series == "dots"].y.astype(float).tolist() == [1, 2, 3, 4]
    bands = frame[frame.mark == "interval"]
    assert bands.panel.unique().tolist() == ["right x"]
    assert bands[["x", "y", "to"]].astype(float).to_numpy().tolist() == [
        [0, -1, 2], [1, 0, 3], [2, 1, 4], [3, 2, 5], [1, 0.25, 0.75],
    ]  # fmt: skip


@pytest.mark.parametrize("lying", [False, True])
def test_bars_are_called_by_the_words_of_their_axis(lying: bool) -> None:
    fig, ax = plt.subplots()
    (ax.barh if lying else ax.bar)(["with BOS", "without"], [0.5, 0.25], label="mass")
    frame = table(fig)
    words, numbers = ("y", "x") if lying else ("x", "y")
    assert frame[words].tolist() == ["with BOS", "without"]
    assert frame[numbers].astype(float).tolist() == [0.5, 0.25]
    assert frame.series.unique().tolist() == ["mass"]


def test_heat_maps_without_what_is_masked_and_without_their_scale() -> None:
    values = np.array([[1.0, 9.0], [0.25, 0.75]])
    fig, ax = plt.subplots()
    image = ax.imshow(np.ma.masked_where(values > 5, values))
    ax.set_xticks(range(2), ["a", "b"])
    fig.colorbar(image, ax=ax)
    frame = table(fig)
    assert frame.mark.unique().tolist() == ["cell"]
    assert list(zip(frame.x, frame.y.astype(float), frame.to.astype(float), strict=True)) == [
        ("a", 0, 1.0), ("a", 1, 0.25), ("b", 1, 0.75),
    ]  # fmt: skip


def test_words_of_a_shared_axis_stand_in_every_panel() -> None:
    fig, axes = plt.subplots(ncols=2, sharey=True)
    for ax in axes:
        ax.imshow([[1.0], [2.0]])
    axes[0].set_yticks(range(2), ["one", "two"])
    fig.canvas.draw()
    assert table(fig).y.tolist() == ["one", "two"] * 2


def test_a_figure_carries_its_numbers() -> None:
    shown = plots.figure(lambda ax: ax.plot([1, 2], [3, 4], label="a < b"), "A line")
    (held,) = re.findall(r'<template class="figure-data">(.*?)</template></figure>$', shown.html, re.DOTALL)
    frame = pd.read_csv(io.StringIO(unescape(held)))
    assert frame.y.tolist() == [3, 4]
    assert frame.series.unique().tolist() == ["a < b"]
