"""The bigram-backcopy task against a loop that draws one token after the other."""

from __future__ import annotations

import bisect

import pytest
import torch

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.backcopy import BOS, Backcopy, is_trigger, texts


def by_hand(cumulative: list[list[float]], uniform: list[float], task: Backcopy) -> list[int]:
    ids = [BOS]
    for number in uniform:
        before = ids[-1]
        if 1 <= before <= task.triggers:
            ids.append(ids[-2])
        else:
            ids.append(min(bisect.bisect_right(cumulative[before], number), task.symbols))
    return ids[: len(uniform)] if task.bos else ids[1:]


@pytest.mark.parametrize(
    "task", [Backcopy(), Backcopy(symbols=9, triggers=4), Backcopy(triggers=0), Backcopy(bos=False)]
)
def test_texts_are_drawn_token_by_token(task: Backcopy) -> None:
    chains = [Backcopy(symbols=task.symbols, triggers=task.triggers, seed=seed).cumulative() for seed in range(3)]
    uniform = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = texts(torch.stack(chains), uniform, task)
    for chain, rows, made in zip(chains, uniform.tolist(), drawn.tolist(), strict=True):
        assert made == [by_hand(chain.tolist(), row, task) for row in rows]


def test_what_follows_a_trigger_stands_before_it_and_the_rest_is_the_chain() -> None:
    task = Backcopy(symbols=6, triggers=2, seed=3)
    uniform = torch.rand(1, 4000, 32, generator=torch.Generator().manual_seed(0))
    ids = texts(task.cumulative()[None], uniform, task)[0]
    trigger = is_trigger(ids, task)
    assert bool(trigger.any())
    assert torch.equal(ids[:, 2:][trigger[:, 1:-1]], ids[:, :-2][trigger[:, 1:-1]])
    assert not bool((trigger[:, 1:] & trigger[:, :-1]).any())
    assert bool((ids[:, 0] == BOS).all())
    assert not bool((ids[:, 1:] == BOS).any())
    # Transitions from symbols that are no triggers are as frequent as the chain says.
    before, after = ids[:, 1:-1][~trigger[:, 1:-1]], ids[:, 2:][~trigger[:, 1:-1]]
    counts = torch.zeros(7, 7, dtype=torch.float64).index_put_(
        (before, after), torch.ones(len(before), dtype=torch.float64), accumulate=True
    )[3:]
    expected = task.chain()[3:]
    error = (expected * (1 - expected) / counts.sum(1, keepdim=True)).sqrt()
    assert bool(((counts / counts.sum(1, keepdim=True) - expected).abs() <= 5 * error + 1e-12).all())


def test_triggers_are_as_much_more_frequent_as_asked() -> None:
    chains = torch.stack([Backcopy(trigger_weight=4.0, seed=seed).chain()[4:] for seed in range(200)])
    means = chains.mean((0, 1))
    assert float(means[1:4].mean() / means[4:].mean()) == pytest.approx(4, rel=0.05)
    assert torch.allclose(chains.sum(-1), torch.ones_like(chains.sum(-1)))


def test_same_seed_same_chain() -> None:
    assert torch.equal(Backcopy(seed=5).chain(), Backcopy(seed=5).chain())
    assert not torch.equal(Backcopy(seed=5).chain(), Backcopy(seed=6).chain())


def test_too_many_triggers_is_one_sentence() -> None:
    with pytest.raises(FirstTokenError, match="at most 62 can be triggers"):
        Backcopy(triggers=63)
