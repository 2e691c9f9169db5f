"""Changes to a sink and their controls, against eager attention with a mask of its own, on every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionMaskInterface
from transformers.masking_utils import eager_mask

from fake import fake_lm
from firsttoken.execution.by_layer import through_layers
from firsttoken.measures import dose
from firsttoken.measures.score_changes import add_to_key
from firsttoken.measures.spread import Batch, run_edits
from firsttoken.probe import Probe, probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.texts.edits import Edit
from saved_models import ids as saved_ids
from saved_models import saved
from tiny import ARCHITECTURES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, LENGTH = 3, 15


def given() -> Tensor:
    return torch.randint(3, 97, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))


def batch(number: int = 0) -> Batch:
    return Batch(number, given(), tuple(range(ROWS)), torch.tensor([], dtype=torch.long), ())


def protected() -> Tensor:
    there = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    there[0, 4] = there[1, 9] = there[2, 2] = True
    return there


# -- the dose -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("nats", [2.0, -4.0])
def test_the_dose_is_eager_attention_with_the_bias_added(name: str, nats: float) -> None:
    """Eager attention adds a four-dimensional mask to its scores, so the bias can be given to the model as one."""
    model, ids = tiny_model(name), given()
    keys = torch.tensor([0, 3, 6])
    with torch.no_grad(), probe(model, hook=dose.dosed(nats, keys)(batch())):
        seen = model(ids, use_cache=False).logits
    model.set_attn_implementation("eager")
    expected = []
    for row, key in zip(ids, keys.tolist(), strict=True):
        bias = torch.zeros(1, 1, LENGTH, LENGTH)
        bias[..., key + 1 :, key] = nats
        expected.append(with_bias(model, row[None], bias))
    torch.testing.assert_close(seen, torch.cat(expected), atol=3e-4, rtol=3e-4)


def with_bias(model: Any, ids: Tensor, bias: Tensor) -> Tensor:
    """The model's own eager path, its mask with `bias` on top."""

    def biased(*args: Any, **kwargs: Any) -> Tensor:
        return eager_mask(*args, **kwargs) + bias

    before = AttentionMaskInterface._global_mapping["eager"]
    AttentionMaskInterface.register("eager", biased)
    try:
        with torch.no_grad():
            return model(ids, use_cache=False).logits
    finally:
        AttentionMaskInterface.register("eager", before)  # type: ignore[arg-type]


# -- what controls leave alone ------------------------------------------------------------------------------


def changes() -> dict[str, Any]:
    return {
        "noise": lambda masses: dose.noisy(1.5, 0, protected(), masses),
        "strong noise": lambda masses: dose.noisy(6.0, 1, protected(), masses),
        "sharpened": lambda masses: dose.sharpened(3.0, protected(), masses),
        "flattened": lambda masses: dose.sharpened(0.2, protected(), masses),
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("change", changes())
def test_controls_hold_the_mass_of_key_0_and_change_the_rest(name: str, change: str) -> None:
    """Per layer, head and query against an untouched pass of its own, through all layers."""
    model, masses = tiny_model(name), dose.Masses()
    with torch.no_grad():
        with probe(model) as untouched:
            plain = model(given(), use_cache=False).logits
        with probe(model, hook=masses.note(batch())):
            model(given(), use_cache=False)
        with probe(model, hook=changes()[change](masses)(batch())) as held:
            changed = model(given(), use_cache=False).logits
    assert (held.attention - untouched.attention).abs().max() < 1e-6
    assert (changed - plain).abs().max() > 1e-3


# -- noise --------------------------------------------------------------------------------------------------


def test_noise_is_the_same_before_and_after_an_edit() -> None:
    lm, ids = fake_lm(tiny_model("llama")), given()
    same = [Edit(text, position, int(ids[text, position]), "random", "middle") for text, position in ((0, 4), (1, 9))]
    masses = dose.Masses()
    run_edits(lm, ids, same, "without_bos", change=masses.note)
    moved = run_edits(lm, ids, same, "without_bos", change=dose.noisy(3.0, 0, protected(), masses))
    assert moved.relative.max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox"])
def test_doses_stream_from_disk(name: str, tmp_path: Path, own_cache: None) -> None:
    lm = saved(name, tmp_path / "model")
    edits = [Edit(text, 4, (int(saved_ids()[text, 4]) + 1) % 97, "random", "middle") for text in range(5)]
    keys = torch.tensor([0, 2, 6, 1, 0])
    runs = [
        run_edits(lm, saved_ids(), edits, "without_bos", 51, way, dose.dosed(2.0, keys), "+2")
        for way in ("resident", "streamed")
    ]
    torch.testing.assert_close(runs[0].relative, runs[1].relative, atol=1e-5, rtol=1e-4)
    assert (runs[0].relative - run_edits(lm, saved_ids(), edits, "without_bos").relative).abs().max() > 1e-3


# -- a model without a sink ---------------------------------------------------------------------------------


def alike(name: str) -> Any:
    """A model whose every key gets equal scores from every query: no sink, and no key differs from another."""
    model = tiny_model(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "q_proj" in key:
                parameter.zero_()
    return model


def test_without_a_sink_key_0_is_a_key_like_any_other() -> None:
    """Raised by 2 nats, key 0 and key 1 take the same attention from every query that sees both."""
    model = alike("llama")

    def attention(key: int, nats: float) -> Tensor:
        with torch.no_grad(), probe(model, keys=[key], hook=dose.dosed(nats, torch.full((ROWS,), key))(batch())) as p:
            model(given(), use_cache=False)
        return p.attention[..., 2:]

    torch.testing.assert_close(attention(0, 2.0), attention(1, 2.0))
    seen = torch.arange(3, LENGTH + 1).float()
    raised = torch.tensor(2.0).exp() / (seen - 1 + torch.tensor(2.0).exp())
    torch.testing.assert_close(attention(0, 2.0), raised.expand_as(attention(0, 2.0)))


def test_without_a_sink_there_is_no_effect_below_zero() -> None:
    """Key 0 gets nothing from anyone, so that taking more of it away changes nothing."""
    model = alike("llama")
    ids = given()

    def states(nats: float) -> Tensor:
        def hook(module: Any, call: AttentionCall) -> AttentionCall:
            return add_to_key(call, nats - 40.0, torch.zeros(ROWS, dtype=torch.long))

        def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
            return v

        seen = through_layers(fake_lm(model), [ids], see, hook_of=lambda number: hook)
        return torch.stack([torch.cat(parts) for parts in seen.values()])

    for nats in (-1.0, -8.0):
        torch.testing.assert_close(states(nats), states(0.0), atol=1e-6, rtol=1e-6)
    assert (states(40.0) - states(0.0)).abs().max() > 1e-3
