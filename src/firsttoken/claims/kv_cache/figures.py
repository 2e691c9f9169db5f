"""Figures of the chapter `kv_cache`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure, model_color, name_rows, reach, table
from firsttoken.records import Record

LABELS = {
    "full": "everything kept",
    "window": "the newest only",
    "sinks 1": "the first 1 + the newest",
    "sinks 2": "the first 2 + the newest",
    "sinks 4": "the first 4 + the newest",
    "sinks 8": "the first 8 + the newest",
    "sinks 4, original positions": "the first 4, original positions",
    "random 4": "4 random early ones + the newest",
    "heavy hitters": "the most attended + the newest",
    "recomputed": "no cache: the newest, computed anew",
    "window, sliding layers too": "the newest only, in sliding layers too",
    "sinks 4, sliding layers too": "the first 4 + the newest, in sliding layers too",
    "sliding layers see the first, original positions": "everything; sliding layers see the first too",
    "sliding layers see the first, cache positions": "the same, renumbered",
}


def policies(records: Sequence[Record]) -> Display:
    """Increase of the loss past the window under each policy."""

    def draw(axes: Any) -> None:
        for ax, record in zip(axes[:, 0], records, strict=True):
            of = record.values["policies"]
            names = [name for name in LABELS if name in of and name != "full"]
            for place, name in enumerate(names):
                e = of[name]["increase"]
                color = CATEGORIES[0] if name.startswith("sinks") else NEUTRAL
                ax.errorbar(e["value"], place, xerr=reach(e), color=color, marker="o", capsize=3, linestyle="none")
            name_rows(ax, [LABELS[name] for name in names])
            ax.axvline(0, color=NEUTRAL, linewidth=0.8)
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_title(f"{called(record)}, {record.parameters['window']} tokens in the cache", fontsize=10)
            ax.set_xlabel("increase of the loss over the full cache (nats)")

    alt = (
        "Increase of the loss over the full cache under each policy, with intervals; policies that keep the first "
        f"tokens are coloured; one panel for each model: {names_of(records)}"
    )
    losses = "; ".join(
        f"{called(record)} by {interval(of['window']['increase'])} and by {interval(of['sinks 4']['increase'])}"
        for record in records
        for of in [record.values["policies"]]
    )
    caption = (
        "What each cache costs over one that keeps everything, with 95 % intervals; policies that keep the first "
        f"tokens are coloured. The newest tokens alone, and with the first four, raise the loss of {losses} nats."
    )
    return figure(draw, alt, caption, nrows=len(records), figsize=(4.9, 5.2 * len(records)), squeeze=False)


def perplexities(records: Sequence[Record]) -> Display:
    """Perplexity past the window under each policy."""
    rows = []
    for record in records:
        for name, label in LABELS.items():
            if name in record.values["policies"]:
                of = record.values["policies"][name]
                rows.append(
                    (
                        called(record),
                        label,
                        interval(of["perplexity"], ".1f"),
                        interval(of["increase"], ".3f"),
                    )
                )
    columns = ("model", "what the cache holds", "perplexity [95 % interval]", "increase of the loss (nats)")
    return table(rows, columns, "Loss of the tokens past the window")


def retrieval(records: Sequence[Record]) -> Display:
    """Share of facts found that lie further back than the window reaches."""
    rows = []
    for record in records:
        for name in ("full", "window", "sinks 4", "heavy hitters"):
            e = record.values["retrieval"][name]
            rows.append((called(record), LABELS[name], f"{e['chance']:.0%}", interval(e, ".0%")))
    columns = ("model", "what the cache holds", "guessing", "found [95 % interval]")
    return table(rows, columns, "Facts hidden in a text, asked for at its end")


def streams(records: Sequence[Record]) -> Display:
    """Along a long generation, with four first tokens in the cache and with none: tokens in the cache, surprise and
    repetition."""
    panels = (
        ("cached", "tokens in\nthe cache"),
        ("surprise", "−log p of sampled\ntokens (nats)"),
        ("repeated", "4-grams\nseen before"),
    )

    def draw(axes: Any) -> None:
        for ax, (name, title) in zip(axes, panels, strict=True):
            for record in records:
                color = model_color(record.model)
                for of, style, what in (
                    (record.values, "-", "the first 4 + the newest"),
                    (record.values.get("window_only", {}), "--", "the newest only"),
                ):
                    if name in of:
                        label = f"{called(record)}: {what}"
                        ax.plot(of["tokens"], of[name], style, color=color, marker=".", label=label)
            ax.set(title=title, xlabel="tokens generated", ylim=(0, None if name != "repeated" else 1))
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    alt = (
        "Along a generation with a bounded cache, with the first four tokens in it and without: tokens in the cache, "
        "how unlikely the sampled tokens were, share of repeated 4-grams"
    )
    ends = "; ".join(f"{called(r)}: {max(r.values['cached']):.0f} tokens" for r in records)
    repeated = "; ".join(
        f"{_mean(r.values['repeated'])} with the first four and {_mean(r.values['window_only']['repeated'])} without "
        f"in {called(r)}"
        for r in records
        if "window_only" in r.values
    )
    caption = (
        "A long generation with a bounded cache, with the first four tokens in it and with the newest alone. The "
        f"cache never holds more than its bound ({ends}). A text that has lost the thread is unlikely or "
        "repeats itself" + (f": of its 4-grams, so many were there before: {repeated}." if repeated else ".")
    )
    return figure(draw, alt, caption, ncols=3, figsize=(8.2, 3.2))


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.0%}"


def excerpt(record: Record) -> Display:
    """The last words of a stream, and of the one without first tokens."""
    total = record.values["tokens"][-1]
    of = {"with the first four kept": record.values["text"]}
    if control := record.values.get("window_only"):
        of["with the newest alone"] = control["text"]
    quoted = "".join(
        f"<p>The last words of {total:,} tokens by {escape(called(record))}, {what}:</p>"
        f"<blockquote><p>{escape(text)}</p></blockquote>"
        for what, text in of.items()
    )
    return Display(f'<div class="themed">{quoted}</div>', "\n\n".join(of.values()))
