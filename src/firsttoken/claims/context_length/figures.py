"""Figures of the chapter `context_length`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from firsttoken import records
from firsttoken.claims.context_length.grid import each, in_order
from firsttoken.claims.context_length.measure import BOS_CHOICES
from firsttoken.estimates import interval
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, band, figure, table
from firsttoken.pretraining.budgets import BUDGETS
from firsttoken.pretraining.curves import BOS_WORDS
from firsttoken.pretraining.run_spec import CLAIM as RUNS
from firsttoken.pretraining.run_spec import SHORT
from firsttoken.progress import duration
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN

PAPER_LENGTHS = (128, 256, 512, 1024, 2048)  # of its curve


def by_length(record: Record) -> Display:
    """Sink rate against the context length of training, without BOS and with a fixed one, beside the paper's curve."""
    rows = record.values["rows"]
    lengths = sorted({int(length) for of_bos in rows.values() for length in of_bos} | set(PAPER_LENGTHS))

    def draw(axes: Any) -> None:
        for ax, bos in zip(axes, BOS_CHOICES, strict=True):
            measured = {int(length): row for length, row in in_order(rows[bos]) if row}
            for color, name, label in (
                (CATEGORIES[2], "sink_rate_0.3", "here, ε = 0.3"),
                (CATEGORIES[3], "sink_rate_0.8", "here, ε = 0.8"),
            ):
                estimates = [row[name] for row in measured.values()]
                band(ax, list(measured), estimates, color=color, marker="o", label=label)
                at_own = [row["trained_length"][name]["value"] for row in measured.values()]
                ax.plot(
                    list(measured), at_own, color=color, linestyle=":", marker="s", markersize=4,
                    label=f"{label}, on texts as long as the training windows",
                )  # fmt: skip
            if bos == "never":
                curve = paper_numbers.paper()["context_length"]
                ax.plot(
                    PAPER_LENGTHS, [curve[str(length)] for length in PAPER_LENGTHS], color=NEUTRAL, marker="D",
                    linestyle="none", label="paper (digitised)",
                )  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.minorticks_off()
            ax.set(xlabel="context length in training", title=BOS_WORDS[bos])
        axes[0].set_ylabel("share of sink heads")
        axes[0].legend(frameon=False)

    return figure(
        draw,
        f"Share of sink heads against the context length in training, budget {record.parameters['budget']}, in two "
        "panels: without BOS, with the paper's five points, and with BOS fixed at the start",
        f"Share of sink heads by the context length in training, on texts of {SHORT} tokens (solid) and on texts as "
        "long as the training windows (dotted). A rising line means that longer training contexts bring more sinks: "
        f"above 0.3 the share goes {'; '.join(_course(rows[bos], BOS_WORDS[bos]) for bos in BOS_CHOICES)}.",
        ncols=len(BOS_CHOICES),
        figsize=(8.2, 3.6),
        sharey=True,
    )


def _course(of_length: Mapping[str, Any], words: str) -> str:
    """From the shortest context to the longest."""
    measured = [(length, row["sink_rate_0.3"]["value"]) for length, row in in_order(of_length) if row]
    if not measured:
        return f"nowhere with {words}, which was not run"
    (shortest, start), (longest, end) = measured[0], measured[-1]
    return f"from {start:.1%} at {shortest} to {end:.1%} at {longest} with {words}"


def length_table(record: Record) -> Display:
    """Every run of the chapter; those that were not trained say so."""
    cells = []
    kinds = [(bos, length, row) for bos in BOS_CHOICES for length, row in in_order(record.values["rows"][bos])]
    for bos, length, row in kinds:
        if row is None:
            cells.append((length, BOS_WORDS[bos], NOT_RUN, "–", "–", "–", "–"))
            continue
        own = row["trained_length"]
        cells.append(
            (
                length,
                BOS_WORDS[bos],
                interval(row["sink_rate_0.3"], ".1%"),
                f"{row['sink_rate_0.8']['value']:.1%}",
                f"{own['sink_rate_0.3']['value']:.1%}",
                f"{row['loss']['value']:.2f}",
                f"{own['loss']['value']:.2f}",
            )
        )
    columns = (
        "context",
        "BOS in training",
        f"ε = 0.3, T = {SHORT}",
        f"ε = 0.8, T = {SHORT}",
        "ε = 0.3, own T",
        f"loss, T = {SHORT}",
        "loss, own T",
    )
    return table(
        cells, columns, f"Sink rate and held-out loss by context length, budget {record.parameters['budget']}"
    )


LOSS_WORDS = {"all": "loss everywhere", "second_half": "loss on the second half"}


def with_bos_fixed(record: Record) -> Display:
    """What the first token gets beyond an even share against the context length, a line for each seed: on short
    texts, and on the second half of texts as long as those of the training."""
    return _lines_of_seeds(
        record.values["runs_of"],
        {"excess": f"texts of {SHORT} tokens", "late_excess": "second half of texts of the own length"},
        "attention to the first token\nbeyond an even share",
        "Attention to the first token beyond an even share against the context length in training, BOS fixed, in two "
        "panels: on short texts, and on the second half of texts of the own length; a line for each seed",
        "A line for each seed; above zero the first token gets more than an even share, and a rising line means that "
        "longer training contexts give it more.",
        zero=True,
    )


def without_bos(record: Record) -> Display:
    """Sink heads of each model that was trained without BOS on a graphics card, a line for each seed."""
    return _lines_of_seeds(
        record.values["rates_of"],
        {"rate": f"texts of {SHORT} tokens", "rate_own": "texts of the own length"},
        "share of sink heads, ε = 0.3",
        "Share of sink heads against the context length in training, without BOS, in two panels: on short texts and "
        "on texts of the own length; a line for each seed",
        "Models without BOS, a line for each seed; a rising line means that longer contexts in training bring sinks.",
        zero=False,
    )


def _lines_of_seeds(
    of_grid: Mapping[str, Any], panels: Mapping[str, str], ylabel: str, alt: str, reading: str, zero: bool
) -> Display:
    """A panel for each number of the entries of a grid, against the context length, a line for each loss and seed.

    Args:
        panels: the title of each, by the name of its number.
        reading: how to read it, the first sentence of the caption.
        zero: whether the numbers are differences, and to draw where nothing is.
    """

    def form(value: float) -> str:
        return f"{value:+.3f}" if zero else f"{value:.1%}"

    lengths = sorted(int(length) for length in of_grid["all"])

    def draw(axes: Any) -> None:
        for ax, (name, title) in zip(axes, panels.items(), strict=True):
            for loss, (color, dash) in zip(LOSS_WORDS, ((CATEGORIES[2], "-"), (CATEGORIES[1], "--")), strict=True):
                for seed in range(len(next(iter(of_grid[loss].values())))):
                    shown = {int(n): seeds[seed] for n, seeds in in_order(of_grid[loss]) if seeds and seeds[seed]}
                    ax.plot(
                        list(shown), [run[name] for run in shown.values()], color=color, linestyle=dash,
                        marker="os^v"[seed], label=f"{LOSS_WORDS[loss]}, seed {seed}" if shown else None,
                    )  # fmt: skip
            if zero:
                ax.axhline(0, color=NEUTRAL, linewidth=1)
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.minorticks_off()
            ax.set(xlabel="context length in training", title=title)
        axes[0].set_ylabel(ylabel)
        axes[0].legend(frameon=False)

    ends = []
    for loss, words in LOSS_WORDS.items():
        means = [
            (length, sum(run[name] for run in runs) / len(runs))
            for length, seeds in in_order(of_grid[loss])
            if (runs := [run for run in seeds or () if run])
            for name in [next(iter(panels))]
        ]
        if means:
            (shortest, start), (longest, end) = means[0], means[-1]
            ends.append(f"from {form(start)} at {shortest} to {form(end)} at {longest} with {words}")
    caption = f"{reading} On texts of {SHORT} tokens the mean over seeds goes {'; '.join(ends) or 'nowhere yet'}."
    return figure(draw, alt, caption, ncols=2, figsize=(8.2, 3.6), sharey=True)


def runs_table(record: Record) -> Display:
    """Each of the ten models by itself."""
    numbers = (
        ("excess", "+.3f"), ("excess_own", "+.3f"), ("late_excess", "+.3f"), ("late_loss", ".2f"),
        ("sink_rate", ".1%"), ("windows", ","),
    )  # fmt: skip
    columns = (
        "context", "loss in training", "seed", f"beyond even, T = {SHORT}", "own T", "own T, second half",
        "loss there", "heads above 0.3", "windows, so BOS seen",
    )  # fmt: skip
    heads = next((run["heads"] for seeds in record.values["runs_of"]["all"].values() for run in seeds if run), 0)
    caption = f"Models trained with BOS fixed; one of {heads} heads is {1 / max(heads, 1):.2%}"
    return table(_rows_of_seeds(record.values["runs_of"], numbers), columns, caption)


def rates_table(record: Record) -> Display:
    """Each of the models without BOS by itself."""
    numbers = (("rate", ".1%"), ("rate_own", ".1%"), ("mass", ".1%"), ("loss", ".2f"), ("loss_own", ".2f"))
    columns = (
        "context", "loss in training", "seed", f"heads above 0.3, T = {SHORT}", "own T", f"mass, T = {SHORT}",
        f"loss, T = {SHORT}", "loss, own T",
    )  # fmt: skip
    heads = record.values["heads"]
    caption = f"Models trained without BOS; one of {heads} heads is {1 / heads:.2%}"
    return table(_rows_of_seeds(record.values["rates_of"], numbers), columns, caption)


def _rows_of_seeds(of_grid: Mapping[str, Any], numbers: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """A row for each model of a grid with some numbers of its entry, each in a format; one not trained says so."""
    return [
        (
            length,
            LOSS_WORDS[loss],
            str(seed),
            *([format(run[name], form) for name, form in numbers] if run else [NOT_RUN, *"–" * (len(numbers) - 1)]),
        )
        for loss, length, seed, run in each(of_grid)
    ]


def costs(tflops: float) -> Display:
    """What one run of each budget costs, predicted for a device that sustains so many 10^12 operations a second,
    beside what the fastest run here has reached: a rate is over the whole time of a run, waiting included."""
    every = records.all_records(RUNS)
    rows = []
    for name, of_budget in BUDGETS.items():
        operations = of_budget.tokens * of_budget.flops_per_token(of_budget.length)
        seconds = operations / (tflops * 1e12)
        reached = [run.values for run in every if run.parameters["budget"] == name]
        rows.append(
            (
                name,
                f"{of_budget.parameters / 1e6:.1f} M",
                f"{of_budget.tokens / 1e6:,.1f} M",
                f"{operations:.1e}",
                duration(seconds) if seconds >= 1 else "under 1 s",
                f"{max(run['tokens_per_second'] for run in reached):,.0f}" if reached else NOT_RUN,
                f"{max(run['share_of_matmul_rate'] for run in reached):.0%}" if reached else NOT_RUN,
            )
        )
    columns = (
        "budget", "weights", "tokens of a run", "operations of a run", "time on such a device, predicted",
        "tokens a second, fastest run", "share of a plain matrix product's rate",
    )  # fmt: skip
    return table(rows, columns, f"One run of each budget, at {tflops:g} TFLOP/s")
