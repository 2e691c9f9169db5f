"""Changes to the scores of one call, against its attention matrix in float64: what they move and what they leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from firsttoken.measures.score_changes import add_noise, add_to_key, first_mass, noise, sharpen
from firsttoken.probe.attention import AttentionCall, attend, plain_scores

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 3


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


def test_the_dose_changes_the_odds_of_later_queries_and_nothing_else() -> None:
    call, keys = a_call(), torch.tensor([0, 5, 2])
    before, after = weights(call), weights(add_to_key(call, 1.5, keys))
    for row, key in enumerate(keys.tolist()):
        torch.testing.assert_close(after[row, :, : key + 1], before[row, :, : key + 1])
        a, b = before[row, :, key + 1 :, key], after[row, :, key + 1 :, key]
        torch.testing.assert_close(b / (1 - b), a / (1 - a) * torch.tensor(1.5).exp(), atol=1e-5, rtol=1e-4)
        others = torch.arange(call.key.shape[2]) != key
        scaled = before[row, :, key + 1 :, others] * ((1 - b) / (1 - a))[..., None]
        torch.testing.assert_close(after[row, :, key + 1 :, others], scaled, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "more", [{}, {"softcap": 3.0}, {"sink_logits": torch.tensor([0.5, -1.0])[None, :, None, None]}]
)
def test_controls_change_ordinary_keys_only(more: dict[str, Any]) -> None:
    call = a_call(**more)
    there = torch.zeros(ROWS, 11, dtype=torch.bool)
    there[:, 4] = True
    mass = first_mass(call)
    z = torch.stack([noise(0, text, 0, 2, 11) for text in range(ROWS)])
    before = weights(call)
    for after in (weights(add_noise(call, 2.0, z, there, mass)), weights(sharpen(call, 2.5, there, mass))):
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
            beta: weights(sharpen(call, beta, there, first_mass(call)))[..., query, keys] for beta in (0.3, 1.0, 3.0)
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
    certain = add_to_key(call, 60.0, torch.zeros(ROWS, dtype=torch.long))
    mass = first_mass(certain)
    assert (mass > 1 - 1e-7).all()
    after = add_noise(call, 1.0, torch.randn(ROWS, 2, 11, 11), torch.zeros(ROWS, 11, dtype=torch.bool), mass)
    output, _ = attend(after)
    assert output.isfinite().all()
    torch.testing.assert_close(weights(after)[..., 0].float(), mass, atol=1e-6, rtol=0)


def test_noise_is_the_same_each_time_and_another_for_another_seed_text_or_layer() -> None:
    first = noise(0, 3, 2, 4, 9)
    assert torch.equal(first, noise(0, 3, 2, 4, 9))
    for other in (noise(1, 3, 2, 4, 9), noise(0, 4, 2, 4, 9), noise(0, 3, 1, 4, 9)):
        assert (first - other).abs().mean() > 0.5
