"""Figures of the chapter `jacobian`: sensitivity of a token to an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from firsttoken.measures.bos_arms import ARMS, LABELS, called_with_arms
from firsttoken.model_names import called
from firsttoken.panels import at_the_end, by_arm, ratio_by_layer
from firsttoken.plots import Display, table
from firsttoken.records import Record
from firsttoken.ticks import whole_numbers


def by_layer(records: Sequence[Record]) -> Display:
    """Mean relative gain at later tokens along the depth."""

    def pick(record: Record) -> Any:
        of_arm = {arm: record.values["by_layer"][arm]["later"] for arm in ARMS}
        return range(len(of_arm["with_bos"])), of_arm

    def adjust(ax: Axes, record: Record) -> None:
        whole_numbers(ax)
        ax.set_ylim(0)

    alt = "Relative gain from a token to the later ones after each layer, with BOS and without"
    ends = at_the_end(records, pick, LABELS, "{:.2g}".format)
    caption = (
        "Relative gain from a token to the later ones after each layer, with 95 % bands; the token's own gain is not "
        f"divided out here. After the last layer it is {ends}."
    )
    ylabel = "relative gain, mean over later tokens"
    return by_arm(records, pick, alt, "after layer (0: the input)", ylabel, LABELS, adjust, caption)


def ratio(records: Sequence[Record]) -> Display:
    """Relative gain without BOS over with it, along the depth."""
    alt = "Relative gain without BOS divided by the one with BOS, after each layer"
    above = ", ".join(
        f"{sum(e['low'] > 1 for e in layers)} of {len(layers)} layers of {called(record)}"
        for record in records
        for layers in [record.values["by_layer"]["ratio"]]
    )
    caption = (
        "Above the dashed line a token acts more strongly on later ones without BOS. The whole 95 % interval lies "
        f"there after {above}."
    )
    return ratio_by_layer(records, "ratio", alt, "gain without BOS / with BOS", caption)


def by_distance(records: Sequence[Record]) -> Display:
    """Relative gain after the last layer against the distance of the two tokens."""
    alt = "Relative gain after the last layer against the distance between the two tokens, both logarithmic"
    return _binned(records, "by_distance", alt, "distance j − i in tokens")


def by_position(records: Sequence[Record]) -> Display:
    """The same against the position of the later token."""
    alt = "Relative gain after the last layer against the number of tokens before the later token, both logarithmic"
    return _binned(records, "by_position", alt, "context of the later token, in tokens")


def _binned(records: Sequence[Record], name: str, alt: str, xlabel: str) -> Display:
    def middles(record: Record) -> list[float]:
        ends = [[int(end) for end in label.split("–")] for label in record.values["distance"]]
        return [sum(pair) / len(pair) for pair in ends]

    def pick(record: Record) -> Any:
        return middles(record), record.values[name]

    def adjust(ax: Axes, record: Record) -> None:
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        bins = zip(middles(record), record.values["distance"], record.values[name][ARMS[0]], strict=True)
        ticks = [(middle, label) for middle, label, estimate in bins if estimate]
        ax.set_xticks([middle for middle, _ in ticks], [label for _, label in ticks], rotation=45)
        ax.xaxis.set_minor_locator(NullLocator())

    def course(record: Record) -> str:
        of_arm = {arm: [e["value"] for e in record.values[name][arm] if e] for arm in ARMS}
        falls = (f"{of[0]:.2g} to {of[-1]:.2g} {LABELS[arm]}" for arm, of in of_arm.items() if of)
        return f"from {' and from '.join(falls)} in {called(record)}"

    caption = f"{alt}, with 95 % bands. From the left end to the right it goes {'; '.join(map(course, records))}."
    return by_arm(records, pick, alt, xlabel, "relative gain after the last layer", LABELS, adjust, caption)


def errors(records: Sequence[Record]) -> Display:
    """The Monte-Carlo error of one pair's gain, and over how many pairs it is then averaged."""
    rows = []
    for record in records:
        for arm in ARMS:
            values = record.values
            error = f"{values[f'monte_carlo_error_{arm}']:.0%}"
            rows.append((called_with_arms(record), LABELS[arm], values["pairs"], error))
    columns = ("model", "arm", "pairs of tokens", "median relative error of one pair and layer")
    return table(rows, columns, "Error from the choice of directions")
