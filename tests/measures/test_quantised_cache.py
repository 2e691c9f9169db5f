"""The simulated rounding of a cache against one that is quantised in earnest, by transformers with optimum-quanto."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from optimum.quanto import MaxOptimizer, get_extension, qint2, qint4, quantize_weight
from torch import Tensor
from transformers import DynamicCache, QuantizedCache

from firsttoken import texts
from firsttoken.measures.rounding import round_to_bits, round_tokens
from firsttoken.models import LanguageModel

PREFIX, LENGTH = 64, 96
GROUP = 64  # numbers that share a scale; one key of smollm2-135m has as many


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The numbers of so many bits that bytes hold, as the library's kernel takes them apart: lowest bits first."""
    return torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)])


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would compile that kernel at its first use, for minutes, and a run that was killed meanwhile would
    leave a lock behind for which every later one waits."""
    monkeypatch.setattr(get_extension("quanto_cpp"), "_lib", SimpleNamespace(unpack=unpack))


@pytest.fixture
def lm(bundled: Callable[[str], LanguageModel]) -> LanguageModel:
    return bundled("smollm2-135m")


@pytest.mark.parametrize(("bits", "kind"), [(4, qint4), (2, qint2)])
def test_rounding_is_that_of_a_library(bits: int, kind: object) -> None:
    x = (
        torch.randn(1, 3, 40, GROUP, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    )
    x[0, 0, 0] *= 100  # a sink
    scale, shift = MaxOptimizer()(x, kind, 0, GROUP)
    theirs = quantize_weight(x, kind, 0, scale, shift, GROUP).dequantize()
    torch.testing.assert_close(round_to_bits(x, bits, -1), theirs, atol=1e-5, rtol=1e-4)


def continued(lm: LanguageModel, ids: Tensor, cache: DynamicCache | QuantizedCache, bits: int | None = None) -> Tensor:
    """Loss of the tokens after the prefix, which is read from the cache; with `bits`, its keys and values are rounded
    there by this project's own rounding."""
    with torch.inference_mode():
        lm.model(ids[:, :PREFIX], past_key_values=cache, use_cache=True, logits_to_keep=1)
        if bits is not None:
            for layer in cache.layers:
                layer.keys = round_tokens(layer.keys, bits, -1)
                layer.values = round_tokens(layer.values, bits, -1)
        logits = lm.model(ids[:, PREFIX:], past_key_values=cache, use_cache=True).logits[:, :-1].float()
    return -logits.log_softmax(-1).gather(-1, ids[:, PREFIX + 1 :, None]).mean()


@pytest.mark.parametrize("bits", [4, 2])
def test_a_quantised_cache_costs_what_the_simulation_says(lm: LanguageModel, bits: int) -> None:
    ids = texts.encode(lm, [texts.passages()[0].text], LENGTH)
    exact = continued(lm, ids, DynamicCache(config=lm.config))
    # A long residual, so that nothing but the prefix is ever quantised.
    real = QuantizedCache("quanto", lm.config, nbits=bits, q_group_size=GROUP, residual_length=LENGTH)
    in_earnest = continued(lm, ids, real)
    simulated = continued(lm, ids, DynamicCache(config=lm.config), bits)
    assert abs(float(in_earnest - exact)) > 1e-3, "the cache was not quantised"
    torch.testing.assert_close(simulated, in_earnest, atol=1e-3, rtol=1e-3)
