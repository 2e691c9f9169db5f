"""Every causal class of the installed transformers: what the probe measures is exact, or refused in a sentence.

`FIRSTTOKEN_UPDATE_ARCHITECTURES=1` writes the table that the book shows; without it the committed one must be true.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import PreTrainedModel

from architectures import MODEL_TYPES, REFUSED_BY_THE_LOADER, small_model
from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.execution.examination import examine
from firsttoken.models.positions import positions_of

TABLE = Path(__file__).parents[2] / "results" / "architectures.json"
TOKENS = 12  # twice the narrowed windows
LONGEST = 512  # tokens that are tried where a configuration names more positions than it has
TOLERANCE = 1e-4


def outcome(model: PreTrainedModel) -> dict[str, str]:
    """How a small model fares: `exact`, `logits` (no usable eager attention) or `refused`."""
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


def reads(model: PreTrainedModel, tokens: int) -> bool:
    ids = torch.randint(3, 60, (1, tokens), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    except Exception:
        return False
    return True


def positions_are_told(model: PreTrainedModel) -> bool:
    """Whether a model reads just as many tokens as it is said to, or more than its configuration names where nothing
    is said."""
    told = positions_of(model)
    if told is not None:
        return reads(model, told) and not reads(model, told + 1)
    named = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return not isinstance(named, int) or not 0 < named <= LONGEST or reads(model, named + 1)


def outcome_of_loading(model_type: str, folder: Path) -> dict[str, str]:
    """The sentence with which a folder of a type is refused before a model is made."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    save_file({f"{layer}.weight": torch.ones(1) for layer in range(100)}, folder / "model.safetensors")
    with pytest.raises(FirstTokenError) as refusal:
        _ = models.load(str(folder)).weights
    sentence = str(refusal.value).replace(str(folder / "config.json"), model_type).replace(str(folder), model_type)
    assert len(sentence.splitlines()) == 1
    return {"class": MODEL_TYPES[model_type], "outcome": "refused", "sentence": sentence}


def _without_numbers(sentence: str) -> str:
    # How wrong a random model would be differs between machines.
    return " ".join("..." if "." in word.strip(".,") and word[0].isdigit() else word for word in sentence.split())


def test_every_causal_class_is_exact_or_refused(tmp_path: Path) -> None:
    transformers.logging.set_verbosity_error()
    outcomes: dict[str, dict[str, str]] = {}
    too_long = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model_type in MODEL_TYPES:
            if model_type in REFUSED_BY_THE_LOADER:
                outcomes[model_type] = outcome_of_loading(model_type, tmp_path / model_type)
            else:
                model = small_model(model_type)
                outcomes[model_type] = outcome(model)
                too_long += [] if positions_are_told(model) else [model_type]
    assert too_long == []
    if os.environ.get("FIRSTTOKEN_UPDATE_ARCHITECTURES"):
        TABLE.write_text(json.dumps(outcomes, indent=1) + "\n")
    assert json.loads(TABLE.read_text()) == outcomes
    assert {told["outcome"] for told in outcomes.values()} <= {"exact", "logits", "refused"}


@pytest.mark.parametrize("model_type", REFUSED_BY_THE_LOADER)
def test_what_the_loader_refuses_cannot_be_built(model_type: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  one that can be built belongs into the sweep
        small_model(model_type)
