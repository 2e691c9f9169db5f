"""Rotary factors of GGUF files give the frequencies that transformers computes from the original configuration."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from firsttoken.errors import FirstTokenError
from firsttoken.models.rope_factors import llama3_scaling, rope_parameters

HEAD = {"general.architecture": "llama"}


def frequencies(parameters: dict[str, object], head_dim: int) -> torch.Tensor:
    config = LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        head_dim=head_dim,
        max_position_embeddings=131072,
        rope_parameters=parameters,
    )
    return ROPE_INIT_FUNCTIONS[str(parameters["rope_type"])](config, "cpu")[0]


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize(
    ("low", "high", "original"), [(1.0, 4.0, 8192), (1.0, 4.0, 64), (2.0, 5.0, 4096), (1.0, 32.0, 512)]
)
def test_llama3(head_dim: int, factor: float, low: float, high: float, original: int) -> None:
    theta = 500000.0
    true = dict(
        rope_type="llama3",
        rope_theta=theta,
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=original,
    )
    plain = theta ** -(torch.arange(0, head_dim, 2) / head_dim)
    divisors = plain / frequencies(true, head_dim)  # what the tensor rope_freqs.weight holds
    read = rope_parameters(
        HEAD, {"rope_freqs.weight": divisors}, {"rope_type": "default", "rope_theta": theta}, head_dim
    )
    torch.testing.assert_close(frequencies(read, head_dim), frequencies(true, head_dim), rtol=2e-4, atol=0)


def test_what_follows_no_rule_is_refused() -> None:
    divisors = torch.tensor([1.0, 9.0, 1.0, 3.0])
    assert llama3_scaling(divisors, 1e4) is None
    with pytest.raises(FirstTokenError, match="follow no rule"):
        rope_parameters(HEAD, {"rope_freqs.weight": divisors}, {"rope_theta": 1e4}, 8)
    with pytest.raises(FirstTokenError, match="4 factors for 8 rotary frequencies"):
        rope_parameters(HEAD, {"rope_freqs.weight": divisors}, {"rope_theta": 1e4}, 16)
    with pytest.raises(FirstTokenError, match="by 'spiral'"):
        rope_parameters(HEAD | {"llama.rope.scaling.type": "spiral"}, {}, {"rope_theta": 1e4}, 16)


def test_keys_and_pairs_of_factors() -> None:
    own = {"rope_type": "default", "rope_theta": 1e4}
    assert rope_parameters(HEAD, {}, own, 8) == own
    assert rope_parameters(HEAD, {"rope_freqs.weight": torch.ones(4)}, own, 8) == own
    yarn = {
        f"llama.rope.scaling.{k}": v for k, v in dict(type="yarn", factor=4.0, original_context_length=512).items()
    }
    assert rope_parameters(HEAD | yarn, {}, own, 8) == own | {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    linear = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    kinds = {"full_attention": dict(own), "sliding_attention": dict(own)}
    read = rope_parameters({"general.architecture": "gemma3"} | linear, {}, kinds, 8)
    assert read == {"full_attention": own | {"rope_type": "linear", "factor": 8.0}, "sliding_attention": own}
    factors = {f"rope_factors_{kind}.weight": torch.full((4,), n) for kind, n in (("short", 1.5), ("long", 3.0))}
    read = rope_parameters(HEAD, factors, own, 8)
    assert (read["rope_type"], read["short_factor"], read["long_factor"]) == ("longrope", [1.5] * 4, [3.0] * 4)
