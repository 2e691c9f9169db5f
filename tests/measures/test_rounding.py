"""Rounding against PyTorch's own fake quantisation, its error bound, and what must stay exact."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from fake import LETTERS, fake_lm
from firsttoken.claims.quantisation import measure as quantisation
from firsttoken.claims.quantisation import verdict
from firsttoken.claims.quantisation.measure import Parameters
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures.rounding import (
    linear_layers,
    put_back_first,
    remember_first,
    round_to_bits,
    round_tokens,
    rounded_activations,
    rounded_cache,
    rounded_weights,
)
from firsttoken.probe import probe
from firsttoken.records import Record
from tiny import tiny_model

IDS = torch.randint(3, 97, (3, 24), generator=torch.Generator().manual_seed(0))
TEXTS = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(80)) for i in range(4)]


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(1, 6), columns=st.integers(1, 9), bits=st.integers(1, 8), dim=st.sampled_from([-1, -2]),
    scale=st.floats(1e-4, 1e4), offset=st.floats(-10, 10), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_error_is_at_most_half_a_step(
    rows: int, columns: int, bits: int, dim: int, scale: float, offset: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(rows, columns, generator=generator) + offset) * scale
    rounded = round_to_bits(x, bits, dim)
    step = (x.amax(dim, keepdim=True) - x.amin(dim, keepdim=True)) / (2**bits - 1)
    assert ((rounded - x).abs() <= step / 2 + 1e-5 * x.abs().max()).all()
    groups = rounded.unbind(0) if dim == -1 else rounded.unbind(1)
    assert all(len(group.unique()) <= 2**bits for group in groups)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equals_torch_where_zero_is_a_level(bits: int) -> None:
    levels = 2**bits - 1
    # The ends are whole numbers of steps away from zero, so that PyTorch's whole zero point is exact.
    x = torch.empty(5, 40).uniform_(-1, 2, generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, 1] = -(levels // 3) / 10, (levels - levels // 3) / 10
    x = x.clamp(-(levels // 3) / 10, (levels - levels // 3) / 10)
    expected = torch.fake_quantize_per_channel_affine(
        x, torch.full((5,), 0.1), torch.full((5,), levels // 3, dtype=torch.int32), 0, 0, levels
    )
    assert (round_to_bits(x, bits, -1) - expected).abs().max() < 1e-5


def test_kept_tokens_are_exact_and_in_no_group() -> None:
    x = torch.randn(2, 3, 10, 4, generator=torch.Generator().manual_seed(0))
    x[:, :, 0] *= 1000
    spoilt = round_tokens(x, 4, -2)
    kept = round_tokens(x, 4, -2, exact=(0,))
    assert torch.equal(kept[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(kept[:, :, 1:], round_to_bits(x[:, :, 1:], 4, -2))
    assert (spoilt - x)[:, :, 1:].abs().mean() > 20 * (kept - x)[:, :, 1:].abs().mean()
    assert torch.equal(round_tokens(x, 4, -1, exact=range(10)), x)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("grouping", ["token", "channel"])
def test_rounded_cache_equals_plain_attention_on_rounded_keys_and_values(name: str, grouping: Any) -> None:
    """Reference: an attention function written out, which rounds with PyTorch operations of its own."""
    dim = -1 if grouping == "token" else -2

    def rounded(x: torch.Tensor) -> torch.Tensor:
        low, high = x[:, :, 1:].amin(dim, keepdim=True), x[:, :, 1:].amax(dim, keepdim=True)
        codes = torch.round((x[:, :, 1:] - low) * 15 / (high - low))
        return torch.cat([x[:, :, :1], low + codes * (high - low) / 15], dim=2)

    def reference(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = (rounded(x).repeat_interleave(groups, dim=1) for x in (key, value))
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        weights = (query @ key.mT * scaling + mask).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), None

    model = tiny_model(name)
    with torch.no_grad(), probe(model, hook=rounded_cache(4, grouping, exact=(0,))):
        logits = model(IDS, use_cache=False).logits
    AttentionInterface.register("rounded_reference", reference)
    ALL_MASK_ATTENTION_FUNCTIONS.register("rounded_reference", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    model.set_attn_implementation("rounded_reference")
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        assert (model(IDS, use_cache=False).logits - expected).abs().max() > 1e-3, "4 bits do something"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_come_back_bit_by_bit(name: str) -> None:
    model = tiny_model(name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    changed: list[str] = []

    def look() -> None:
        changed.extend(key for key, weight in model.state_dict().items() if not torch.equal(weight, before[key]))
        for module in linear_layers(model):
            out_first = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
            assert all(len(row.unique()) <= 8 for row in out_first)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), rounded_weights(model, 3):
        look()
    assert len(changed) == len(linear_layers(model))
    assert not any("embed" in key or "wte" in key or "lm_head" in key for key in changed)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_rounded_activations_are_what_the_matrices_read() -> None:
    model = tiny_model("llama")
    seen: list[torch.Tensor] = []
    with rounded_activations(model, 3, "tensor", exact=(0,)):
        handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, i, o: seen.append(i[0]))
        model(IDS, use_cache=False)
        handle.remove()
    for row in seen[0]:
        assert len(row[1:].unique()) <= 8
        assert len(row[0].unique()) > 8
    seen.clear()
    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    model(IDS, use_cache=False)
    handle.remove()
    assert len(seen[0][0, 1:].unique()) > 8, "nothing stays behind"


def test_first_tokens_put_back_are_those_of_the_exact_model() -> None:
    model = tiny_model("llama")
    store: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    with torch.no_grad(), probe(model, hook=remember_first(store, 2)):
        exact = model(IDS, use_cache=False).logits
    with torch.no_grad(), probe(model, hook=put_back_first(store)):
        torch.testing.assert_close(model(IDS, use_cache=False).logits, exact, atol=1e-5, rtol=0)
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    put_back = put_back_first(store)

    def both(module: Any, call: Any) -> Any:
        return remember_first(seen, 2)(module, put_back(module, call))

    with torch.no_grad(), rounded_weights(model, 2), probe(model, hook=both):
        changed = model(IDS, use_cache=False).logits
    assert not torch.allclose(changed, exact, atol=1e-2)
    for layer, (key, value) in store.items():
        assert torch.equal(seen[layer][0], key)
        assert torch.equal(seen[layer][1], value)


def test_kurtosis_of_vectors_with_known_answers() -> None:
    one = torch.zeros(1000)
    one[3] = 7.0
    assert float(quantisation.kurtosis(one)) == pytest.approx(1000, rel=0.01)
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert float(quantisation.kurtosis(normal)) == pytest.approx(3, abs=0.1)
    assert float(quantisation.kurtosis(torch.tensor([-1.0, 1.0]))) == pytest.approx(1)


def test_outliers_find_a_planted_one() -> None:
    lm = fake_lm(tiny_model("llama"))
    handle = lm.model.model.layers[1].register_forward_hook(_plant)
    values = quantisation.outliers(lm, IDS)
    handle.remove()
    assert values["largest_at_first"]["value"] == 1
    first, others = (values["outliers"][name] for name in ("first", "others"))
    assert first[2]["value"] > 100 * others[2]["value"]
    assert first[1]["value"] < 3 * others[1]["value"]
    # One number among 32.
    assert values["outliers"]["kurtosis_first"][2]["value"] == pytest.approx(31, abs=1.5)


def _plant(module: Any, arguments: Any, output: Any) -> Any:
    v = output[0] if isinstance(output, tuple) else output
    v = v.clone()
    v[:, 0, 5] = 1e4
    return (v, *output[1:]) if isinstance(output, tuple) else v


def test_record_of_a_tiny_model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr(quantisation.texts, "exactly", lambda source, count: TEXTS[:count])
    lm = fake_lm(tiny_model("llama"))
    record = quantisation.MEASUREMENT.record(lm, Parameters(passages=4, length=40))
    values = record.values
    for grouping in quantisation.GROUPINGS:
        increases = [values["cache"][grouping][str(bits)]["none"]["value"] for bits in (8, 2)]
        assert abs(increases[0]) < abs(increases[1]), "fewer bits, more harm"
    headline = values["cache"]["token"]["4"]
    assert values["loss_saved"]["value"] == pytest.approx(headline["none"]["value"] - headline["first"]["value"])
    assert record.verdict == verdict.judge(record)


def test_bad_parameters() -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="kept must be at least 1"):
        Parameters(kept=0)
    with pytest.raises(FirstTokenError, match="length at least 16 more"):
        Parameters(length=12)
    with pytest.raises(FirstTokenError, match="passages must be at least 2, not 1"):
        Parameters(passages=1)
    with pytest.raises(FirstTokenError, match="bits must be between 1 and 16, not 0"):
        round_to_bits(torch.ones(2, 2), 0, -1)
    with pytest.raises(FirstTokenError, match="of a token or of a channel"):
        rounded_cache(4, "head")  # type: ignore[arg-type]
    context = rounded_activations(lm.model, 8, "layer")  # type: ignore[arg-type]
    with pytest.raises(FirstTokenError, match="by token or by tensor"):
        context.__enter__()


@pytest.mark.parametrize(
    ("share", "clear", "status"),
    [(0.9, 4, "reproduced"), (0.9, 2, "partly"), (0.9, 0, "partly"), (0.2, 4, "partly"), (0.2, 0, "not reproduced")],
)
def test_verdicts_follow_from_the_numbers(share: float, clear: int, status: str) -> None:
    def estimate(value: float) -> dict[str, Any]:
        return asdict(Estimate(value, value - 0.01, value + 0.01, 16))

    def setting(saved: float, more: float) -> dict[str, Any]:
        first = estimate(3.0 - saved)
        return {"saved": estimate(saved), "none": estimate(3.0), "first": first, "more_than_control": estimate(more)}

    assert set(verdict.CACHES) == {(grouping, bits) for grouping in quantisation.GROUPINGS for bits in (4, 3)}
    caches: dict[str, dict[str, Any]] = {"token": {}, "channel": {}}
    for number, (grouping, bits) in enumerate(verdict.CACHES):
        caches[grouping][str(bits)] = {"more_than_control": estimate(0.1 if number < clear else 0.0)}
    values = {
        "cache": caches,
        "loss_saved": estimate(0.1),
        "loss_saved_control": estimate(0.0),
        "largest_at_first": estimate(share),
        "activations": {
            "token": {"8": setting(0.4, 0.3), "4": setting(9.0, 0.0)},
            "tensor": {"8": setting(2.5, 2.0)},
        },
    }
    judged = verdict.judge(Record("quantisation", "some-model", {}, values, {}))
    assert judged.status == status
    # Not the largest number, but the largest that the first token saves surely more than another.
    assert "at 8 bits and one scale a text: it saves 2.50" in judged.sentence
