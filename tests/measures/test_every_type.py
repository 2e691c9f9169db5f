"""What runs the decoder alone, on every causal class that the probe measures: a finite number, or one sentence."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from architectures import small_model
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.measures.head_norms import trace_heads
from firsttoken.models import LanguageModel
from firsttoken.probe.forward import run_decoder
from firsttoken.probe.residual_stream import push_forward, residual_stream

TABLE = json.loads((ROOT / "results" / "architectures.json").read_text())
MEASURED = [name for name, told in TABLE.items() if told["outcome"] != "refused" and not told["sentence"]]


def norms(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    lm = LanguageModel("tiny", "folder", ".", None, "0" * 16, "none", "float32", "cpu")
    vars(lm).update(model=model, config=model.config)
    traces = trace_heads(lm, ids)
    assert traces.attention.shape[:3] == traces.added_norm.shape[:3], "a layer for a layer, a head for a head"
    return [traces.attention, traces.added_norm, traces.value_norm, traces.largest]


def derivative(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    moved: list[Tensor] = []
    entered = residual_stream(model, ids)[0]
    tangent = torch.zeros_like(entered)
    tangent[:, 3] = 1.0
    push_forward(model, ids, tangent, lambda layer, v, jv: moved.append(jv))
    assert not any(jv[:, :3].any() for jv in moved), "no earlier token moves"
    return moved


WAYS: dict[str, Callable[[PreTrainedModel, Tensor], list[Tensor]]] = {
    "the last hidden state": lambda model, ids: [run_decoder(model, ids)],
    "head norms": norms,
    "derivatives": derivative,
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_measured_or_refused(way: str, one_thread: None) -> None:
    transformers.logging.set_verbosity_error()
    ids = torch.randint(5, 90, (1, 10), generator=torch.Generator().manual_seed(0))
    refused, wrong = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model_type in MEASURED:
            model = small_model(model_type)
            try:
                with torch.no_grad():
                    seen = WAYS[way](model, ids)
            except FirstTokenError as error:
                refused[model_type] = str(error)
                continue
            except Exception as error:
                wrong[model_type] = repr(error)[:200]
                continue
            if not all(torch.isfinite(part).all() for part in seen):
                wrong[model_type] = "no numbers"
    assert wrong == {}
    assert all(len(sentence.splitlines()) == 1 for sentence in refused.values())
    assert len(refused) < len(MEASURED) / 3, refused
