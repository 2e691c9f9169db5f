"""The nine rows of the paper's table; named without torch, because the verdict reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firsttoken.pretraining.checkpoint_probe import Input
    from firsttoken.pretraining.packing import BosInTraining, Masking


@dataclass(frozen=True)
class Row:
    """One row of the table: how a model was trained, and how it is read."""

    masking: Masking
    bos: BosInTraining
    inference: Input


# In the order of the paper's table, which `results/paper.json` keeps.
ROWS = (
    Row("causal", "never", "BOS+text"),
    Row("causal", "never", "text"),
    Row("causal", "fixed", "BOS+text"),
    Row("causal", "fixed", "text"),
    Row("intra_document", "never", "text"),
    Row("intra_document", "documents", "BOS+text"),
    Row("intra_document", "documents", "text"),
    Row("intra_document", "fixed", "BOS+text"),
    Row("intra_document", "fixed", "text"),
)
