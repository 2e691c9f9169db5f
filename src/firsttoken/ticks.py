"""The labels of an axis: powers as plain text, numbers of layers, whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, LogFormatter, MaxNLocator


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


def plain_powers(fig: Figure) -> None:
    """Write the ticks of all logarithmic axes of a figure as `power` does."""
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for get, put in (
                (axis.get_major_formatter, axis.set_major_formatter),
                (axis.get_minor_formatter, axis.set_minor_formatter),
            ):
                if isinstance(given := get(), LogFormatter):
                    put(_PlainPowers(given))


def numbering(numbers: Sequence[int]) -> FuncFormatter:
    """Labels for an axis along the rows of a result: the number of the row's layer, nothing between rows."""

    def label(at: float, _: object) -> str:
        row = round(at)
        return str(numbers[row]) if abs(at - row) < 1e-6 and 0 <= row < len(numbers) else ""

    return FuncFormatter(label)


def whole_numbers(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
