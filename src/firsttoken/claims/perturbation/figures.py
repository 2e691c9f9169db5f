"""Figures of the chapter `perturbation`: one edit at every layer and token, and the statistics of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import ARMS, LABELS, called_with_arms
from firsttoken.model_names import called
from firsttoken.panels import by_arm, ratio_by_layer
from firsttoken.plots import COLORMAP, NARROW, Cells, Display, figure, table
from firsttoken.records import Record
from firsttoken.texts.edits import Kind, Place
from firsttoken.ticks import whole_numbers

FLOOR = 1e-3  # smaller relative distances share one colour


def heat_map(record: Record) -> Display:
    """Relative distance at every layer and token of one edit, a map for each arm that says what is pointed at; why
    there is none, where the edit does not fit the model's tokens."""
    picture = record.values["picture"]
    if "refused" in picture:
        return _refused(record)
    arms = [arm for arm in ARMS if arm in picture]
    tokens = [_visible(token) for token in picture["tokens"]]
    maps = [np.array(picture[arm]["relative"]).T for arm in arms]  # (token, layer + 1) each

    def draw(axes: Any) -> None:
        panels = np.ravel(axes)
        for ax, arm, relative in zip(panels, arms, maps, strict=True):
            image = ax.imshow(
                np.maximum(relative, FLOOR),
                aspect="auto",
                cmap=COLORMAP,
                norm=LogNorm(FLOOR, 1),
                interpolation="nearest",
            )
            ax.set(title=LABELS[arm], xlabel="after layer")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_yticks(range(len(tokens)), tokens, fontsize=9)
        bar = {"location": "bottom", "aspect": 40, "pad": 0.01, "format": "%g"}
        panels[0].figure.colorbar(image, ax=panels, label="relative distance", **bar)

    cells = [
        Cells(
            x="after layer",
            y="token",
            value="relative distance",
            columns=range(relative.shape[1]),
            rows=[f"{number}: {token}" for number, token in enumerate(tokens)],
            texts=[[f"{value:.3g}" for value in row] for row in relative],
        )
        for relative in maps
    ]
    edited = tokens[picture["position"]]
    other = _visible(picture["edited_tokens"][picture["position"]])
    alt = (
        f"Tokens by layers for {called(record)}, coloured by how far each token moves when {edited} is replaced by "
        f"{other}; tokens before the edit do not move"
    )
    later = [relative[picture["position"] + 1 :, -1].mean() for relative in maps]
    ends = " and ".join(f"{mean:.2f} {LABELS[arm]}" for mean, arm in zip(later, arms, strict=True))
    caption = (
        f"How far each token of {called_with_arms(record)} moves after each layer when “{edited}” becomes “{other}”. "
        f"After the last layer, later tokens lie {ends} of their norm away, on average."
    )
    # Tokens below each other, so that they can be read on a telephone too.
    return figure(draw, alt, caption, cells, ncols=len(arms), sharey=True, figsize=(NARROW, 8.6), squeeze=False)


def _refused(record: Record) -> Display:
    rows = [(called(record), record.values["picture"]["refused"])]
    return table(rows, ("model", "why it is not here"), "No picture of an edit")


def _visible(token: str) -> str:
    return token.strip() or repr(token)[1:-1]


def absolute_map(record: Record) -> Display:
    """The same edit as absolute distances."""
    picture = record.values["picture"]
    if "refused" in picture:
        return _refused(record)
    arms = [arm for arm in ARMS if arm in picture]
    maps = [np.array(picture[arm]["absolute"]).T for arm in arms]  # (token, layer + 1) each
    top = max(float(m.max()) for m in maps)

    def draw(axes: Any) -> None:
        for ax, arm, m in zip(np.atleast_1d(axes), arms, maps, strict=True):
            image = ax.imshow(
                np.ma.masked_equal(m, 0),
                aspect="auto",
                cmap=COLORMAP,
                norm=LogNorm(top / 1e4, top),
                interpolation="nearest",
            )
            ax.set(title=called_with_arms(record, "\n") + f",\n{LABELS[arm]}", xlabel="after layer")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        np.atleast_1d(axes)[0].set_ylabel("token")
        label = "absolute distance (norm of the difference)"
        ax.figure.colorbar(image, ax=axes, label=label, format="%g", location="bottom", shrink=0.55, aspect=30)

    alt = f"The same edit in {called(record)} as absolute distances, which grow with the size of the residual stream"
    place = picture["position"]
    growth = " and ".join(
        f"{m[place, -1] / m[place, 1]:.0f} times {LABELS[a]}" for m, a in zip(maps, arms, strict=True)
    )
    caption = (
        f"The same edit in {called(record)} as absolute distances. They grow with the residual stream: from the first "
        f"layer to the last, that of the edited token itself becomes {growth} as large."
    )
    return figure(draw, alt, caption, ncols=len(arms), figsize=(4.1 * len(arms), 3.8), sharey=True)


def spread_by_layer(records: Sequence[Record]) -> Display:
    """Mean relative distance of later tokens along the depth, both arms."""

    def pick(record: Record) -> Any:
        by_layer = record.values["by_layer"]
        of_arm = {arm: by_layer[arm]["spread"] for arm in ARMS if arm in by_layer}
        return range(1, len(next(iter(of_arm.values()))) + 1), of_arm

    def adjust(ax: Axes, record: Record) -> None:
        whole_numbers(ax)
        ax.set_ylim(0)

    alt = "How far later tokens move, relative to their norm, after each layer, with BOS and without"
    last = {
        called(record): " and ".join(f"{of[-1]['value']:.2f} {LABELS[arm]}" for arm, of in pick(record)[1].items())
        for record in records
    }
    ends = "; ".join(f"{model}: {words}" for model, words in last.items())
    caption = f"{alt}, with 95 % intervals over passages. After the last layer it is {ends}."
    ylabel = "relative distance, mean over later tokens"
    return by_arm(records, pick, alt, "after layer", ylabel, LABELS, adjust, caption)


def ratio(records: Sequence[Record]) -> Display:
    """Spread without BOS over spread with it, along the depth."""
    compared = [record for record in records if "ratio" in record.values["by_layer"]]
    alt = "Spread of an edit without BOS divided by its spread with BOS, after each layer"
    above = ", ".join(
        f"{sum(e['low'] > 1 for e in layers)} of {len(layers)} layers of {called(record)}"
        for record in compared
        for layers in [record.values["by_layer"]["ratio"]]
    )
    caption = (
        f"{alt}, with 95 % intervals over passages; not divided by the edited token's own change, as the verdict's "
        f"number is. The whole interval lies above one in {above}."
    )
    return ratio_by_layer(compared, "ratio", alt, "spread without BOS / with BOS", caption)


def groups(records: Sequence[Record]) -> Display:
    """The ratio by kind of edit and by where in the text it is."""
    rows = []
    for record in records:
        for group, names in (("kind", get_args(Kind)), ("place", get_args(Place))):
            of_group = record.values.get(f"by_{group}", {})
            for name in names:
                if name in of_group:
                    rows.append(
                        (
                            called_with_arms(record),
                            f"{group}: {name}",
                            of_group[name]["edits"],
                            interval(of_group[name]),
                        )
                    )
    columns = ("model", "edits", "how many", "spread without BOS / with BOS [95 % interval]")
    return table(
        rows,
        columns,
        "The ratio for each kind of edit and each place in the text, not divided by the token's own change",
    )
