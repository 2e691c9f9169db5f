"""Figures of the chapter `perturbation`: one edit at every layer and token, and the statistics of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import ARMS, LABELS
from firsttoken.panels import by_arm, ratio_by_layer
from firsttoken.plots import COLORMAP, Display, figure, interactive, table, whole_numbers
from firsttoken.records import Record
from firsttoken.texts.edits import Kind, Place

FLOOR = 1e-3  # smaller relative distances share one colour


def heat_map(record: Record) -> Display:
    """Relative distance at every layer and token of one edit, an interactive map for each arm."""
    picture = record.values["picture"]
    arms = [arm for arm in ARMS if arm in picture]
    tokens = [_visible(token) for token in picture["tokens"]]
    fig = make_subplots(
        rows=len(arms),
        cols=1,
        subplot_titles=[f"{record.model}, {LABELS[arm]}" for arm in arms],
        vertical_spacing=0.16,
    )
    for number, arm in enumerate(arms, 1):
        relative = np.array(picture[arm]["relative"])  # (layer + 1, token)
        fig.add_trace(
            go.Heatmap(
                z=np.log10(np.maximum(relative, FLOOR)).round(3),
                text=[[f"{value:.3g}" for value in row] for row in relative],
                customdata=[[f"{n}: {token}" for n, token in enumerate(tokens)] for _ in relative],
                hovertemplate="token %{customdata}<br>after layer %{y}<br>relative distance %{text}<extra></extra>",
                coloraxis="coloraxis",
            ),
            row=number,
            col=1,
        )
        fig.update_yaxes(title_text="after layer", row=number, col=1)
    fig.update_xaxes(tickvals=list(range(len(tokens))), ticktext=tokens, tickangle=-60, tickfont_size=8)
    ticks = [0.001, 0.01, 0.1, 1]
    fig.update_layout(
        coloraxis=dict(
            colorscale=COLORMAP,
            cmin=np.log10(FLOOR),
            cmax=0,
            colorbar=dict(
                title_text="relative<br>distance", tickvals=np.log10(ticks), ticktext=[f"{tick:g}" for tick in ticks]
            ),
        ),
        margin=dict(l=50, r=10, t=30, b=60),
    )
    edited = tokens[picture["position"]]
    alt = (
        f"Layers by tokens for {record.model}, coloured by how far each token moves when {edited} is replaced by "
        f"{_visible(picture['edited_tokens'][picture['position']])}; tokens before the edit do not move"
    )
    return interactive(fig, alt, height=340 * len(arms))


def _visible(token: str) -> str:
    return token.strip() or repr(token)[1:-1]


def absolute_map(record: Record) -> Display:
    """The same edit as absolute distances."""
    picture = record.values["picture"]
    arms = [arm for arm in ARMS if arm in picture]
    maps = [np.array(picture[arm]["absolute"]) for arm in arms]
    top = max(float(m.max()) for m in maps)

    def draw(axes: Any) -> None:
        for ax, arm, m in zip(np.atleast_1d(axes), arms, maps, strict=True):
            image = ax.imshow(
                np.ma.masked_equal(m, 0),
                aspect="auto",
                origin="lower",
                cmap=COLORMAP,
                norm=LogNorm(top / 1e4, top),
                interpolation="nearest",
            )
            ax.set(title=f"{record.model}, {LABELS[arm]}", xlabel="token")
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        np.atleast_1d(axes)[0].set_ylabel("after layer")
        ax.figure.colorbar(image, ax=axes, label="absolute distance (norm of the difference)")

    alt = f"The same edit in {record.model} as absolute distances, which grow with the size of the residual stream"
    return figure(draw, alt, ncols=len(arms), figsize=(4.7 * len(arms), 3.3), sharey=True)


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
    return by_arm(records, pick, alt, "after layer", "relative distance, mean over later tokens", LABELS, adjust)


def ratio(records: Sequence[Record]) -> Display:
    """Spread without BOS over spread with it, along the depth."""
    compared = [record for record in records if "ratio" in record.values["by_layer"]]
    alt = "Spread of an edit without BOS divided by its spread with BOS, after each layer"
    return ratio_by_layer(compared, "ratio", alt, "spread without BOS / with BOS")


def groups(records: Sequence[Record]) -> Display:
    """The ratio by kind of edit and by where in the text it is."""
    rows = []
    for record in records:
        for group, names in (("kind", get_args(Kind)), ("place", get_args(Place))):
            of_group = record.values.get(f"by_{group}", {})
            for name in names:
                if name in of_group:
                    rows.append((record.model, f"{group}: {name}", of_group[name]["edits"], interval(of_group[name])))
    columns = ("model", "edits", "how many", "spread without BOS / with BOS [95 % interval]")
    return table(rows, columns, "The ratio for each kind of edit and each place in the text")
