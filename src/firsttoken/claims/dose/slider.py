"""The slider of the chapter `dose`: a reader moves the dose and sees what it does to each model.

`dose-slider.js` draws it from recorded doses alone; there is nothing between two of them. Where no script runs, the
table of all doses stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import exp

from firsttoken.estimates import JSON, interval
from firsttoken.model_names import called
from firsttoken.plots import Display, embedded, model_color, table
from firsttoken.records import Record


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One number that a dose moves.

    Attributes:
        key: its name in a record's `by_dose`.
        most: the right end of its bars; 0: where the largest interval of all models and doses ends.
    """

    key: str
    label: str
    form: str
    most: float = 0


OUTCOMES = (
    Outcome(key="mass", label="mass on the first key", form=".1%", most=1),
    Outcome(key="outcome", label="spread / own, times untouched", form=".2f"),
    Outcome(key="loss_rise", label="rise in loss, nats per token", form="+.2f"),
)
LABEL = "Nats added to every head's score of the first key"


def slider(measured: Sequence[Record]) -> Display:
    """A slider over the doses with a bar for each model and outcome, its interval written beside it."""
    every_dose = dose_table(measured)
    html = (
        f'<div class="dose-slider themed" role="group" aria-label="{escape(LABEL)}">'
        f'<div class="dose-slider-table">{every_dose.html}</div>'
        f"{embedded(drawn(measured), ensure_ascii=False)}</div>"
    )
    return Display(html, every_dose.text)


def nats(dose: float) -> str:
    """A dose as it is written: nothing has no sign."""
    return f"{dose:+g}" if dose else "0"


def doses(record: Record) -> list[float]:
    """The doses of a record from the one that takes most off the sink to the one that adds most."""
    return sorted(record.values["doses"])


def dose_table(measured: Sequence[Record]) -> Display:
    """Every dose of every model in words."""
    rows = [
        (called(record), nats(dose), *(_text(record, outcome, dose) for outcome in OUTCOMES))
        for record in measured
        for dose in doses(record)
    ]
    columns = ("model", "nats on the first key", *(outcome.label for outcome in OUTCOMES))
    return table(rows, columns, "What each dose does [95 % interval over texts]", folds=False)


def drawn(measured: Sequence[Record]) -> JSON:
    """What the script draws: doses, outcomes, and for each model, dose and outcome a bar from 0 to 1 with its text.

    The models have one scale, so that their bars can be compared. A dose that not all of them have is left out.
    """
    shared = [dose for dose in doses(measured[0]) if all(dose in record.values["doses"] for record in measured)]
    ends = {outcome.key: _end(measured, outcome) for outcome in OUTCOMES}
    return {
        "label": LABEL,
        "doses": [{"nats": nats(dose), "odds": f"{exp(dose):.2g}"} for dose in shared],
        "start": min(range(len(shared)), key=lambda place: abs(shared[place])),
        "outcomes": [outcome.label for outcome in OUTCOMES],
        "models": [
            {
                "name": called(record),
                "color": model_color(record.model),
                "bars": [[_bar(record, outcome, dose, ends[outcome.key]) for outcome in OUTCOMES] for dose in shared],
                "untouched": [_bar(record, outcome, 0.0, ends[outcome.key])["at"] for outcome in OUTCOMES],
            }
            for record in measured
        ],
    }


def _estimate(record: Record, outcome: Outcome, dose: float) -> dict[str, float]:
    estimate: dict[str, float] = record.values["by_dose"][outcome.key][record.values["doses"].index(dose)]
    return estimate


def _text(record: Record, outcome: Outcome, dose: float) -> str:
    """The number with its interval; without one where it is what it is by definition, as of the untouched model."""
    estimate = _estimate(record, outcome, dose)
    if estimate["low"] == estimate["high"]:
        return format(estimate["value"], outcome.form)
    return interval(estimate, outcome.form)


def _end(measured: Sequence[Record], outcome: Outcome) -> float:
    """The value at the right end of the bars."""
    highs = [e["high"] for record in measured for e in record.values["by_dose"][outcome.key]]
    return outcome.most or max(*highs, 1e-9)


def _bar(record: Record, outcome: Outcome, dose: float, end: float) -> JSON:
    estimate = _estimate(record, outcome, dose)
    at, low, high = (round(min(max(estimate[key] / end, 0), 1), 4) for key in ("value", "low", "high"))
    return {"at": at, "low": low, "high": high, "text": _text(record, outcome, dose)}
