"""Whether a control of equal loss decides: what rules ask of a weakened sink beside its controls.

Without torch, because verdicts and figures use it; `equal_loss` compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST_COST = 0.08  # nats of loss; a weakened sink that costs less is held against no control
SEEDS = 3  # of the noise that rules compare with


def costly(values: Mapping[str, Any]) -> bool:
    """Whether the weakened sink that is held against the controls costs enough loss to be judged."""
    return bool(values["cost"]["value"] >= LEAST_COST)


def covered(control: Mapping[str, Any]) -> bool:
    """Whether the strongest control surely costs more than the weakened sink, so that one of equal loss lies in
    between."""
    return bool(control["headroom"]["low"] > 0)


def too_few_seeds(parameters: Mapping[str, Any]) -> str:
    """A sentence where a record's noise had fewer seeds than rules ask for, else nothing."""
    seeds = parameters.get("noise_seeds", SEEDS)
    return f"The rule asks for noise of {SEEDS} seeds, not {seeds}: it cannot be decided." if seeds < SEEDS else ""


def decides(values: Mapping[str, Any]) -> bool:
    """Whether noise of equal loss decides."""
    return costly(values) and covered(values["noise"])
