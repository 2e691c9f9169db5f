"""Which matrices of a model are rounded and what they read, on architectures that do it otherwise than most."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from architectures import small_model
from firsttoken.errors import FirstTokenError
from firsttoken.measures.rounding import linear_layers, rounded_activations, rounded_weights
from tiny import ARCHITECTURES, tiny_model

IDS = torch.randint(3, 97, (3, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["token", "tensor"])
@pytest.mark.parametrize("name", ["llama", "opt", "gpt2", "minicpm3"])
def test_a_text_is_rounded_by_itself(name: str, scope: Any) -> None:
    """OPT lays all texts of a batch behind each other before its MLP; read one by one, there is nothing to mix up.
    MiniCPM 3 has a dimension of size one in its latent attention. Doubles, so that no sum decides a level."""
    model = (tiny_model(name) if name in ARCHITECTURES else small_model(name)).double()
    with torch.no_grad(), rounded_activations(model, 4, scope, exact=(0,)):
        together = model(IDS, use_cache=False).logits
        one_by_one = torch.cat([model(row[None], use_cache=False).logits for row in IDS])
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        plain = model(IDS, use_cache=False).logits
    torch.testing.assert_close(together[:, 0], plain[:, 0])
    assert (together - plain)[:, 1:].abs().amax(-1).min() > 1e-3, "every other token is rounded, in every text"


def test_a_matrix_that_reads_some_of_the_tokens_is_refused() -> None:
    model = tiny_model("llama")
    mlp = model.model.layers[2].mlp
    inner = mlp.forward
    mlp.forward = lambda x: torch.cat([inner(x.flatten(0, 1)[:10]), x.flatten(0, 1)[10:]]).view_as(x)
    with (
        torch.no_grad(),
        rounded_activations(model, 4, "token"),
        pytest.raises(FirstTokenError, match=r"reads \(10, 32\) numbers and not one row for each token"),
    ):
        model(IDS, use_cache=False)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "gpt_oss-sinks", "granitemoe", "deepseek_v3-latent", "dbrx"])
def test_a_mixture_of_experts_is_refused(name: str) -> None:
    """No module reads for its experts, which are stacks of matrices; most of it would stay exact."""
    model = tiny_model(name) if name in ARCHITECTURES else small_model(name)
    for context in (rounded_weights(model, 4), rounded_activations(model, 4, "token")):
        with pytest.raises(FirstTokenError, match=r"Expert.*choose a model without experts"):
            context.__enter__()


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "experts" not in str(ARCHITECTURES[name].extra)])
def test_matrices_are_all_that_a_layer_multiplies_with(name: str) -> None:
    model = tiny_model(name)
    layers = model.get_decoder().layers if hasattr(model.get_decoder(), "layers") else model.get_decoder().h
    numbers = sum(weight.numel() for weight in layers.parameters() if weight.dim() > 1)
    assert sum(module.weight.numel() for module in linear_layers(model)) == numbers
