"""What a smallest model shows besides its sink, against loops over texts and edits and against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from firsttoken.pretraining import smallest_outcomes
from firsttoken.pretraining.backcopy import BOS
from firsttoken.pretraining.design_outcomes import EDITS, replaced
from firsttoken.pretraining.smallest import VARIANTS, Smallest, Variant
from firsttoken.pretraining.smallest_training import Run, Setting

pytestmark = pytest.mark.usefixtures("one_thread")


def model_of(variant: Variant = "softmax", width: int = 8) -> Smallest:
    torch.manual_seed(0)
    model = Smallest(10, 7, width, variant).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


def texts_of(bos: bool = True) -> Tensor:
    ids = torch.randint(1, 10, (5, 7), generator=torch.Generator().manual_seed(1))
    if bos:
        ids[:, 0] = BOS
    return ids


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def length_of(vector: np.ndarray) -> float:
    return float(sum(float(x) ** 2 for x in vector) ** 0.5)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("variant", ["softmax", "sigmoid", "split_heads", "depth_gate"])
def test_spread_over_own_is_that_of_a_loop(variant: Variant, bos: bool) -> None:
    model, ids, random = model_of(variant), texts_of(bos), generator()
    later = own = 0.0
    for _ in range(EDITS):
        positions = torch.randint(1, 6, (5,), generator=random)
        edited = replaced(ids, positions, ids, random)
        for text, position in enumerate(positions.tolist()):
            assert (edited[text] != ids[text]).nonzero().flatten().tolist() == [position]
            before, after = (model(rows[text : text + 1]).stream[0].double().numpy() for rows in (ids, edited))
            moved = [length_of(b - a) / length_of(a) for a, b in zip(before, after, strict=True)]
            assert max(moved[:position]) == 0
            own += moved[position]
            later += sum(moved[position + 1 :]) / (6 - position)
    shown = smallest_outcomes.outcomes(model, ids, generator())
    assert later > 0
    assert shown["spread_over_own"] == pytest.approx(later / own, rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_attention_nothing_spreads(variant: Variant) -> None:
    model = model_of(variant)
    torch.nn.init.zeros_(model.out.weight)
    assert smallest_outcomes.outcomes(model, texts_of(), generator())["spread_over_own"] == 0


def test_what_a_head_adds_spreads_in_proportion_when_it_is_small() -> None:
    model = model_of()
    torch.nn.init.zeros_(model.mlp[2].weight)
    spread = []
    for size in (1e-3, 2e-3):
        torch.nn.init.eye_(model.out.weight).mul_(size)
        spread.append(smallest_outcomes.outcomes(model, texts_of(), generator())["spread_over_own"])
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.01)


def test_the_largest_activation_is_that_of_numpy() -> None:
    model, ids = model_of(width=9), texts_of()
    stream = np.abs(model(ids).stream.double().numpy())  # of 315 numbers, one is in the middle
    largest = float(stream.max() / np.median(stream))
    shown = smallest_outcomes.outcomes(model, ids, generator())
    assert shown["largest_activation"] == pytest.approx(largest, rel=1e-6)


def test_the_stream_is_what_the_logits_are_read_from() -> None:
    model, ids = model_of("depth_gate"), texts_of()
    read = model(ids)
    assert torch.equal(model.logits(model.before_logits(read.stream)), read.logits)


@pytest.mark.parametrize("bos", [True, False])
def test_a_seed_is_measured_on_the_same_new_texts_each_time(bos: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(length=8, symbols=9, width=8, bos=bos)
    seen: list[Tensor] = []
    whole = smallest_outcomes.outcomes

    def outcomes(model: Smallest, ids: Tensor, random: torch.Generator) -> dict[str, float]:
        seen.append(ids)
        return whole(model, ids, random)

    monkeypatch.setattr(smallest_outcomes, "outcomes", outcomes)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    runs = [Run(seed=seed, model=setting.model(seed).eval(), history=[], learnt=None) for seed in (0, 1, 1)]
    shown = [smallest_outcomes.of_run(run, setting) for run in runs]
    assert torch.equal(torch.get_rng_state(), state)
    assert shown[1] == shown[2]
    assert shown[0] != shown[1]
    assert seen[0].shape == (1024, 8)
    assert bool((seen[0][:, 0] == BOS).all()) == bos
    assert bool((seen[0][:, 1:] != BOS).all())
    # None of them is the text that begins the training or its history.
    for seed in (1, 1 + (1 << 20), 1 + (2 << 20), 1 + (3 << 20)):
        random = torch.Generator().manual_seed(seed)
        task = setting.task(1)
        other = smallest_outcomes.PLAIN.draw(task.cumulative()[None], [random], 1024, 8, task)[0]
        assert not torch.equal(other, seen[1])


def test_steps_are_timed_side_by_side() -> None:
    plain = Setting(length=8, width=8, tokens_per_step=256)
    settings = {"softmax": plain, "sigmoid": replace(plain, variant="sigmoid")}
    times = smallest_outcomes.step_times(settings, threads=1, rounds=5)
    assert set(times) == {"threads", "softmax", "sigmoid"}
    assert times["softmax"]["value"] == 1
    assert times["sigmoid"]["n"] == 5
    assert 0 < times["sigmoid"]["low"] <= times["sigmoid"]["value"] <= times["sigmoid"]["high"]
