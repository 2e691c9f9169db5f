"""Do packing and a fixed BOS decide where the sink forms? What a record says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from firsttoken.claims.base import of_smoke_run
from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.estimates import JSON, interval, surely_above
from firsttoken.records import Record, Status, Verdict

if TYPE_CHECKING:
    from firsttoken.pretraining.packing import Masking

LEAST_RATE = 0.05  # of sink heads, below which a model counts as one without sinks
SEEDS = 3  # from so many on they are the unit, not the texts
LEAST_MASS, LEAST_LOSS = 0.03, 0.05  # of every seed: attention to the first token, and nats
NAMES: dict[Masking, str] = {"causal": "Causal packing", "intra_document": "Intra-document masking"}


def judge(record: Record) -> Verdict:
    """The card's statements (a) to (d) for each masking that was trained."""
    if (smoke := of_smoke_run(record)) is not None:
        return smoke
    rows = dict(zip(ROWS, record.values["rows"], strict=True))
    if record.parameters["seeds"] >= SEEDS:
        return _of_seeds(rows, record.parameters["seeds"], len(record.values["runs"]))
    held, asked, parts, missing = 0, 0, [], []
    for masking, name in NAMES.items():
        never = rows[Row(masking, "never", "text")]
        with_bos = rows[Row(masking, "fixed", "BOS+text")]
        without = rows[Row(masking, "fixed", "text")]
        if not (never and with_bos and without):
            if masking == "causal":
                return Verdict("inconclusive", "Causal packing with a fixed BOS and without any has not been trained.")
            continue
        rate, loss = "sink_rate_0.3", "loss"
        change = with_bos["missing_bos"]
        checks = (
            surely_above(with_bos[rate], never[rate]),  # (a)
            change[rate]["high"] < 0,  # (b)
            change[loss]["low"] > 0,  # (c)
        )
        held, asked = held + sum(checks), asked + len(checks)
        if never[rate]["low"] <= LEAST_RATE:  # not (d)
            missing.append(name)
        parts.append(
            f"{name}: {interval(with_bos[rate], '.1%')} of the heads are sinks with BOS fixed in training, "
            f"{interval(without[rate], '.1%')} when that BOS is missing at inference (which changes the loss of "
            f"{with_bos[loss]['value']:.2f} nats by {interval(change[loss], '+.3f')}), "
            f"{interval(never[rate], '.1%')} when trained without any."
        )
    if missing:
        parts.append(f"Sinks without any BOS, which the paper finds, did not form ({' and '.join(missing).lower()}).")
    status: Status = "reproduced" if held == asked and not missing else "partly" if held else "not reproduced"
    return Verdict(status, " ".join(parts))


def _of_seeds(rows: Mapping[Row, JSON | None], seeds: int, runs: int) -> Verdict:
    """The same statements, each of every seed by itself."""
    held: list[bool] = []  # (a) to (c) of each masking
    unfixed: list[bool] = []  # (d)
    parts, formed = [], False
    for masking, name in NAMES.items():
        three = [rows[Row(masking, *row)] for row in (("never", "text"), ("fixed", "BOS+text"), ("fixed", "text"))]
        complete = [row for row in three if row is not None and row["seeds"] == seeds]
        if len(complete) < len(three):
            if masking == "causal":
                models = len({(row.masking, row.bos) for row in ROWS}) * seeds
                return Verdict("inconclusive", f"Causal packing lacks a seed: {runs} of {models} models are trained.")
            continue
        never, with_bos, without = ([each["excess"] for each in row["each"]] for row in complete)
        cost = [each["missing_bos_loss"] for each in complete[1]["each"]]
        formed |= max(with_bos) >= LEAST_MASS
        checks = (
            min(a - b for a, b in zip(with_bos, never, strict=True)) >= LEAST_MASS,  # (a)
            min(a - b for a, b in zip(with_bos, without, strict=True)) >= LEAST_MASS,  # (b)
            min(cost) >= LEAST_LOSS,  # (c)
        )
        held.extend(checks)
        unfixed.append(min(never) >= LEAST_MASS)
        parts.append(
            f"{name}, {seeds} seeds: the first token gets {_each(with_bos)} beyond an even share with BOS fixed in "
            f"training, {_each(without)} when that BOS is missing at inference (which costs {_each(cost)} nats), "
            f"{_each(never)} when trained without any. "
            + " ".join(
                f"({letter}) {'holds' if check else 'does not'}."
                for letter, check in zip("abcd", (*checks, unfixed[-1]), strict=True)
            )
        )
    if not formed:
        return Verdict("inconclusive", " ".join(["No seed forms a sink, even with BOS fixed.", *parts]))
    status: Status = "reproduced" if all(held + unfixed) else "partly" if any(held) else "not reproduced"
    return Verdict(status, " ".join(parts))


def _each(values: Sequence[float]) -> str:
    return " / ".join(f"{value:+.3f}" for value in values)
