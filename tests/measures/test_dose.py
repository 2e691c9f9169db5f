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
from firsttoken.measures.spread import Batch, run_edits
from firsttoken.probe import Probe, probe
from firsttoken.probe.attention import AttentionCall, attend, plain_scores
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


def a_call(seed: int = 0, length: int = 11, **more: Any) -> AttentionCall:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (2 * torch.randn(ROWS, 2, length, 8, generator=generator) for _ in range(3))
    return AttentionCall(q, k, v, 8**-0.5, causal=True, **more)


def weights(call: AttentionCall) -> Tensor:
    """The attention matrix of a call in float64."""
    scores = plain_scores(call).double()
    if call.sink_logits is not None:
        virtual = call.sink_logits.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, virtual], dim=-1)
    return scores.softmax(-1)[..., : call.key.shape[2]]


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


def test_the_dose_changes_the_odds_of_later_queries_and_nothing_else() -> None:
    call, keys = a_call(), torch.tensor([0, 5, 2])
    before, after = weights(call), weights(dose.add_to_key(call, 1.5, keys))
    for row, key in enumerate(keys.tolist()):
        torch.testing.assert_close(after[row, :, : key + 1], before[row, :, : key + 1])
        a, b = before[row, :, key + 1 :, key], after[row, :, key + 1 :, key]
        torch.testing.assert_close(b / (1 - b), a / (1 - a) * torch.tensor(1.5).exp(), atol=1e-5, rtol=1e-4)
        others = torch.arange(call.key.shape[2]) != key
        scaled = before[row, :, key + 1 :, others] * ((1 - b) / (1 - a))[..., None]
        torch.testing.assert_close(after[row, :, key + 1 :, others], scaled, atol=1e-6, rtol=1e-4)


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


@pytest.mark.parametrize(
    "more", [{}, {"softcap": 3.0}, {"sink_logits": torch.tensor([0.5, -1.0])[None, :, None, None]}]
)
def test_controls_change_ordinary_keys_only(more: dict[str, Any]) -> None:
    call = a_call(**more)
    there = torch.zeros(ROWS, 11, dtype=torch.bool)
    there[:, 4] = True
    mass = dose.first_mass(call)
    z = torch.stack([dose.noise(0, text, 0, 2, 11) for text in range(ROWS)])
    before = weights(call)
    for after in (weights(dose.add_noise(call, 2.0, z, there, mass)), weights(dose.sharpen(call, 2.5, there, mass))):
        torch.testing.assert_close(after[..., 0], before[..., 0], atol=1e-6, rtol=0)
        # The odds between what may not change: own key and protected key.
        for query in range(5, 11):
            odds = [one[..., query, query] / one[..., query, 4] for one in (before, after)]
            torch.testing.assert_close(odds[0], odds[1], atol=0, rtol=1e-4)
        assert (after[..., 8, 1] - before[..., 8, 1]).abs().max() > 1e-2


def test_sharpening_keeps_the_share_of_ordinary_keys_and_lowers_their_entropy() -> None:
    call, there = a_call(), torch.zeros(ROWS, 11, dtype=torch.bool)
    there[:, 4] = True
    before = weights(call)

    def entropy(of: Tensor) -> Tensor:
        share = of / of.sum(-1, keepdim=True)
        return -(share * share.log()).sum(-1)

    for query in range(6, 11):
        keys = [key for key in range(1, query) if key != 4]
        of = {
            beta: weights(dose.sharpen(call, beta, there, dose.first_mass(call)))[..., query, keys]
            for beta in (0.3, 1.0, 3.0)
        }
        for beta in of:
            torch.testing.assert_close(of[beta].sum(-1), before[..., query, keys].sum(-1), atol=1e-6, rtol=0)
        torch.testing.assert_close(of[1.0], before[..., query, keys], atol=1e-6, rtol=0)
        assert (entropy(of[3.0]) < entropy(of[1.0])).all()
        assert (entropy(of[1.0]) < entropy(of[0.3])).all()
        powers = before[..., query, keys] ** 3
        closed = powers / powers.sum(-1, keepdim=True) * before[..., query, keys].sum(-1, keepdim=True)
        torch.testing.assert_close(of[3.0], closed, atol=1e-6, rtol=0)


def test_a_mass_of_one_is_held_too() -> None:
    call = a_call()
    certain = dose.add_to_key(call, 60.0, torch.zeros(ROWS, dtype=torch.long))
    mass = dose.first_mass(certain)
    assert (mass > 1 - 1e-7).all()
    after = dose.add_noise(call, 1.0, torch.randn(ROWS, 2, 11, 11), torch.zeros(ROWS, 11, dtype=torch.bool), mass)
    output, _ = attend(after)
    assert output.isfinite().all()
    torch.testing.assert_close(weights(after)[..., 0].float(), mass, atol=1e-6, rtol=0)


# -- noise --------------------------------------------------------------------------------------------------


def test_noise_is_the_same_before_and_after_an_edit_and_another_for_another_seed_text_or_layer() -> None:
    first = dose.noise(0, 3, 2, 4, 9)
    assert torch.equal(first, dose.noise(0, 3, 2, 4, 9))
    for other in (dose.noise(1, 3, 2, 4, 9), dose.noise(0, 4, 2, 4, 9), dose.noise(0, 3, 1, 4, 9)):
        assert (first - other).abs().mean() > 0.5
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


# -- strengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("answer", [0.01, 0.7, 30.0])
def test_the_strength_that_raises_a_loss_by_a_target(power: float, answer: float) -> None:
    tried: list[float] = []

    def rise(strength: float) -> float:
        tried.append(strength)
        return 0.3 * strength**power - 0.001 * strength**power * strength

    target = 0.3 * answer**power - 0.001 * answer**power * answer
    strength = dose.matching_strength(rise, target, 1.0, tolerance=0.01)
    assert abs(rise(strength) / target - 1) <= 0.01
    assert len(tried) <= 11


def test_strengths_that_are_sought_together_are_those_sought_alone() -> None:
    """Kinds that take more tries than others, and one that is asked for nothing more after its last."""
    powers = {"root": 0.5, "line": 1.0, "square": 2.0}
    asked: list[set[str]] = []

    def rises(at: dict[str, float]) -> dict[str, float]:
        asked.append(set(at))
        return {kind: 0.3 * strength ** powers[kind] for kind, strength in at.items()}

    starts = {"root": 1.0, "line": 1.0, "square": 0.1}
    strengths = dose.matching_strengths(rises, 0.3, starts)
    alone = {
        kind: dose.matching_strength(lambda s, power=power: 0.3 * s**power, 0.3, starts[kind])  # type: ignore[misc]
        for kind, power in powers.items()
    }
    assert strengths == alone
    assert asked[0] == set(powers)
    assert len(asked) > 1
    assert all(kinds == {"square"} for kinds in asked[1:])


def test_a_rise_that_jumps_or_stays_ends_with_the_nearest_strength() -> None:
    assert dose.matching_strength(lambda s: 0.0, -0.1, 1.0) == 0.0
    assert dose.matching_strength(lambda s: 0.1, 1.0, 1.0, tries=4) == 1.0
    strength = dose.matching_strength(lambda s: float(s > 3), 0.4, 1.0, tries=12)
    assert strength <= 3


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
            return dose.add_to_key(call, nats - 40.0, torch.zeros(ROWS, dtype=torch.long))

        def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
            return v

        seen = through_layers(fake_lm(model), [ids], see, hook_of=lambda number: hook)
        return torch.stack([torch.cat(parts) for parts in seen.values()])

    for nats in (-1.0, -8.0):
        torch.testing.assert_close(states(nats), states(0.0), atol=1e-6, rtol=1e-6)
    assert (states(40.0) - states(0.0)).abs().max() > 1e-3
