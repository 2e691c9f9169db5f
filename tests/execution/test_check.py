"""The check of a model before it is measured: what it lets through, what it refuses, and with which numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.execution import check
from firsttoken.execution.by_layer import attention
from firsttoken.measures.attention_maps import check_heads
from firsttoken.measures.first_token_attention import alphas_of_prefixes
from firsttoken.models.small_copy import random_model, small_copy
from firsttoken.probe import probe
from tiny import COMMON, OLD

HYBRID = {"layer_types": ["conv", "full_attention"] * 2}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4,
    "long_factor": [1.0, 4.0, 16.0, 40.0], "original_max_position_embeddings": 32,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
# Kinds of models whose short texts are not the beginnings of long ones.
PREFIXES = {
    "longrope": ("phi3", dict(rope_parameters=LONGROPE, original_max_position_embeddings=32, sliding_window=None)),
    "dynamic NTK": ("llama", dict(max_position_embeddings=32, rope_parameters=DYNAMIC)),
    "encoder": ("bert", {}),
    "bidirectional text model": ("gemma3_text", dict(use_bidirectional_attention=True, query_pre_attn_scalar=8)),
    "not causal": ("llama", dict(is_causal=False)),
    "control": ("llama", {}),
}


def saved(folder: Path, model_type: str, **extra: object) -> tuple[models.LanguageModel, PreTrainedModel]:
    model = random_model(AutoConfig.for_model(model_type, **{**COMMON, **extra}))
    model.save_pretrained(folder)
    return models.load(str(folder)), model


@pytest.mark.parametrize("execution", ["resident", "streamed"])
def test_a_hybrid_says_which_layers_its_rows_are(tmp_path: Path, execution: str) -> None:
    lm, _ = saved(tmp_path / execution, "lfm2", **HYBRID)
    checks = check.checked(lm, execution)
    assert checks.layers == (1, 3)
    assert checks.subject == ("copy" if execution == "streamed" else "model and copy")
    assert checks.causal
    assert checks.attention is not None
    assert checks.attention < 1e-4
    assert json.loads(json.dumps(checks.to_json()))["layers"] == [1, 3]
    assert check.checked(lm, execution) is checks  # kept
    with torch.no_grad(), probe(lm.model) as p:
        lm.model(torch.arange(5, 13)[None])
    assert tuple(p.layers) == checks.layers
    assert attention(p, 1) is None
    assert attention(p, 2) is not None
    assert check.layer_numbers(lm, 2, execution) == [1, 3]
    assert check.layer_numbers(lm, 4, execution) == [0, 1, 2, 3], "all layers, as of a residual stream"
    with pytest.raises(FirstTokenError, match=r"Layer 0 of .* has no attention to tokens; .* are 1, 3"):
        check_heads(lm, [(0, 0)])
    check_heads(lm, [(3, 0)])


@pytest.mark.parametrize("kind", PREFIXES)
def test_never_answers_for_a_prefix(tmp_path: Path, kind: str) -> None:
    model_type, extra = PREFIXES[kind]
    lm, model = saved(tmp_path / "model", model_type, **extra)
    ids = torch.randint(3, 97, (2, 48), generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(model(ids[:, :16], output_attentions=True).attentions)
    alphas = alphas_of_prefixes(lm, ids, [16, 48], execution="resident")
    torch.testing.assert_close(alphas[16], maps[..., 0].mean(-1).transpose(0, 1), atol=1e-5, rtol=0)
    assert check.answers_for_prefixes(lm, 48) == (kind == "control")
    assert check.check(lm).causal == (kind in ("longrope", "dynamic NTK", "control"))


@pytest.mark.parametrize("kind", ["encoder", "bidirectional text model", "not causal"])
def test_refuses_models_that_read_later_tokens(tmp_path: Path, kind: str) -> None:
    model_type, extra = PREFIXES[kind]
    lm, _ = saved(tmp_path / "model", model_type, **extra)
    with pytest.raises(FirstTokenError, match="read later ones"):
        check.checked(lm)


def test_a_copy_has_every_kind_of_layer_and_leaves_the_generator_alone() -> None:
    kinds = ["conv"] * 5 + ["full_attention"] + ["conv"] * 2
    config = AutoConfig.for_model("lfm2", num_hidden_layers=8, layer_types=kinds)
    state = torch.get_rng_state()
    copied = small_copy(config)
    assert torch.equal(torch.get_rng_state(), state)
    assert copied is not None
    assert set(copied.config.layer_types) == {"conv", "full_attention"}
    assert sum(parameter.numel() for parameter in copied.parameters()) < 1_000_000


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_bundled_models_pass_quickly(name: str) -> None:
    import time

    lm = models.load(name)
    _ = lm.model
    start = time.process_time()
    checks = check.checked(lm)
    # Two seconds, with room for a busy machine.
    assert time.process_time() - start < 4
    assert checks.subject == "model and copy"
    assert checks.layers == tuple(range(lm.config.num_hidden_layers))
    assert max(checks.logits or 0, checks.interventions or 0, checks.attention or 1) < 1e-4


@pytest.mark.parametrize("key", ["model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_refuses_weights_that_are_no_numbers(tmp_path: Path, key: str, number: float) -> None:
    _, model = saved(tmp_path / "model", "llama")
    model.get_parameter(key).data[-1, 0] = number  # of a token that no check reads
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(FirstTokenError, match=rf"{re.escape(key)} holds weights that are no numbers in float32"):
        check.checked(models.load(str(tmp_path / "model")))


@pytest.mark.parametrize("positions", [4, 12, 23])
def test_a_model_with_few_positions_is_checked_on_as_many(positions: int, tmp_path: Path) -> None:
    random_model(AutoConfig.for_model("gpt2", **{**OLD, "n_positions": positions})).save_pretrained(tmp_path)
    lm = models.load(tmp_path)
    assert lm.longest_input == positions
    checks = check.checked(lm)
    assert checks.tokens == positions
    assert checks.attention is not None


def test_a_model_of_one_position_shows_no_sink(tmp_path: Path) -> None:
    random_model(AutoConfig.for_model("gpt2", **{**OLD, "n_positions": 1})).save_pretrained(tmp_path)
    with pytest.raises(FirstTokenError, match="reads 1 tokens at most"):
        check.check(models.load(tmp_path))
