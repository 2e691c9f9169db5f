"""Do packing and a fixed BOS decide where the sink forms? What a record says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsttoken.claims.base import of_smoke_run
from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.estimates import interval, surely_above
from firsttoken.records import Record, Status, Verdict

if TYPE_CHECKING:
    from firsttoken.pretraining.packing import Masking

LEAST_RATE = 0.05  # of sink heads, below which a model counts as one without sinks
NAMES: dict[Masking, str] = {"causal": "Causal packing", "intra_document": "Intra-document masking"}


def judge(record: Record) -> Verdict:
    """The card's statements (a) to (d) for each masking that was trained."""
    if (smoke := of_smoke_run(record)) is not None:
        return smoke
    rows = dict(zip(ROWS, record.values["rows"], strict=True))
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
