"""The over-squashing bound against exact Jacobians: it must never be violated, and must not be absurdly loose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from firsttoken.claims.theory.bounds import SUPPORTED, layer_bounds, spectral_norm
from firsttoken.errors import FirstTokenError
from firsttoken.measures.path_sums import log_path_sums
from jacobian_exact import exact_jacobian
from tiny import tiny_model

NAMES = (
    "llama",
    "llama-mha",
    "llama-mqa",
    "mistral-sliding",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2-softcap",
    "gemma3_text",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of a few numbers are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def block_norms(jacobian: torch.Tensor) -> torch.Tensor:
    """Spectral norm of each token pair's block: (token j, token i)."""
    return torch.linalg.matrix_norm(jacobian.transpose(1, 2), ord=2)


def random_model(name: str, seed: int, scale: float, parts: tuple[str, ...] = ("",)) -> PreTrainedModel:
    """A tiny model in float64 with random gains of norms and with the matrices named by `parts` scaled."""
    model = tiny_model(name, seed=seed).double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() < 2:  # gains of ones would hide a forgotten one
                parameter.add_(0.5 * torch.randn_like(parameter))
            elif any(part in key for part in parts):
                parameter.mul_(scale)
    return model


# A failing example is a failing example; making it smaller takes minutes.
FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)
EXAMPLES = dict(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 10**6),
    length=st.integers(2, 6),
    scale=st.sampled_from([0.05, 0.3, 1.0, 2.0]),
)


@FEW
@given(**EXAMPLES)
def test_never_violated(name: str, seed: int, length: int, scale: float) -> None:
    model = random_model(name, seed, scale)
    ids = torch.randint(3, 97, (1, length), generator=torch.Generator().manual_seed(seed))
    bounds = layer_bounds(model, ids)
    tight = log_path_sums([bound.block for bound in bounds])
    worst = torch.tensor(max(bound.constant for bound in bounds), dtype=torch.float64).log()
    theorem = log_path_sums([bound.abar for bound in bounds])
    for layer in (1, len(bounds)):
        exact = block_norms(exact_jacobian(model, ids, layer)).log()
        assert (exact <= tight[layer - 1] + 1e-4).all()
        assert (tight[layer - 1] <= theorem[layer - 1] + layer * worst + 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_attention_alone(name: str) -> None:
    """One layer without its MLP, whose slack would hide a term forgotten elsewhere: never violated, and nearly
    reached, so that a factor too many would show too."""
    closest = 0.0
    for seed in range(4):
        for scale in (0.5, 2.0):
            model = random_model(name, seed, scale, ("q_proj", "k_proj"))
            with torch.no_grad():
                for layer in model.model.layers:
                    layer.mlp.down_proj.weight.zero_()
            ids = torch.randint(3, 97, (1, 8), generator=torch.Generator().manual_seed(seed))
            exact = block_norms(exact_jacobian(model, ids, 1))
            bound = layer_bounds(model, ids)[0].block
            assert (exact <= bound * (1 + 1e-4) + 1e-9).all()
            seen = exact > 1e-6
            closest = max(closest, float((exact[seen] / bound[seen]).max()))
    assert closest > 0.1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_spectral_norm(seed: int, rows: int, columns: int) -> None:
    matrix = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(spectral_norm(matrix), torch.linalg.matrix_norm(matrix, ord=2))


def test_other_architectures_are_refused() -> None:
    assert "gpt2" not in SUPPORTED
    with pytest.raises(FirstTokenError, match="gpt2 is built otherwise"):
        layer_bounds(tiny_model("gpt2"), torch.tensor([[3, 4]]))
