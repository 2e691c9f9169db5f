"""Every causal class of the installed transformers: what the probe measures is exact, or refused in a sentence.

`FIRSTTOKEN_UPDATE_ARCHITECTURES=1` writes the table that the book shows; without it the committed one must be true.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import transformers

from architectures import MODEL_TYPES, NOT_BUILT, small_model
from firsttoken.errors import FirstTokenError
from firsttoken.execution.check import examine

TABLE = Path(__file__).parents[2] / "results" / "architectures.json"
TOKENS = 12  # twice the narrowed windows
TOLERANCE = 1e-4


def outcome(model_type: str) -> dict[str, str]:
    """How the small model of a type fares: `exact`, `logits` (no usable eager attention) or `refused`."""
    model = small_model(model_type)
    name = type(model).__name__
    try:
        shown = examine(model, name, TOKENS)
    except FirstTokenError as refusal:
        return {"class": name, "outcome": "refused", "sentence": _without_numbers(str(refusal))}
    differences = (shown.logits, shown.interventions, shown.attention)
    assert all(difference is None or difference < TOLERANCE for difference in differences), (name, shown)
    assert shown.logits is not None
    assert shown.interventions is not None
    sentence = "" if shown.causal else "Tokens read later ones, so chapters refuse it."
    return {"class": name, "outcome": "logits" if shown.attention is None else "exact", "sentence": sentence}


def _without_numbers(sentence: str) -> str:
    # How wrong a random model would be differs between machines.
    return " ".join("..." if "." in word.strip(".,") and word[0].isdigit() else word for word in sentence.split())


def test_every_causal_class_is_exact_or_refused() -> None:
    transformers.logging.set_verbosity_error()
    outcomes: dict[str, dict[str, str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model_type, class_name in MODEL_TYPES.items():
            if model_type in NOT_BUILT:
                outcomes[model_type] = {"class": class_name, "outcome": "not tried", "sentence": NOT_BUILT[model_type]}
            else:
                outcomes[model_type] = outcome(model_type)
    if os.environ.get("FIRSTTOKEN_UPDATE_ARCHITECTURES"):
        TABLE.write_text(json.dumps(outcomes, indent=1) + "\n")
    assert json.loads(TABLE.read_text()) == outcomes


@pytest.mark.parametrize("model_type", NOT_BUILT)
def test_what_is_not_tried_cannot_be_built(model_type: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  one that can be built belongs into the sweep
        small_model(model_type)
