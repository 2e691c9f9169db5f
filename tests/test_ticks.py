"""Labels of axes."""

from __future__ import annotations

from typing import Any

import pytest

from drawn import drawing
from firsttoken import plots
from firsttoken.ticks import power


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0"),
        (0.02, "0.02"),
        (-3000, "−3000"),
        (1e-4, "10⁻⁴"),
        (-1e5, "−10⁵"),
        (2e-6, "2·10⁻⁶"),
        (-2e12, "−2·10¹²"),
    ],
)
def test_a_power_is_plain_text_of_one_digit(x: float, text: str) -> None:
    assert power(x) == text


def test_powers_of_a_logarithmic_axis_are_plain_text() -> None:
    def plot(ax: Any) -> None:
        ax.plot([0, 1], [1e-7, 1e5])
        ax.set_yscale("log")

    drawn = drawing(plots.figure(plot, "Powers"))
    assert {"10⁻⁵", "10⁵"} <= {text.get_text(strip=True) for text in drawn.find_all("text")}
    assert not drawn.find("tspan")
