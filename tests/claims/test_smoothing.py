"""Entropies and spectra against eager attention and against rows whose answer is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import spectra
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import start
from tiny import tiny_model

LENGTH = 20


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("arm", ARMS)
def test_rows_equal_eager(name: str, arm: Arm) -> None:
    lm = fake_lm(tiny_model(name))
    ids = torch.randint(3, 97, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    found = smoothing.rows(lm, ids, arm, batch_tokens=2 * LENGTH)
    inputs, first = start(lm, ids, arm)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(lm.model.base_model(inputs, output_attentions=True).attentions)[..., first + 1 :, :]
    torch.testing.assert_close(found.entropy, torch.special.entr(maps).sum(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.renyi2, -maps.square().sum(-1).log(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.first, maps[..., 0], atol=1e-5, rtol=0)
    # What is left of a row without its first entry, renormalised; every row weighted by how much is left.
    rest = maps[..., 1:] / maps[..., 1:].sum(-1, keepdim=True)
    weight = 1 - maps[..., 0]
    expected = (torch.special.entr(rest).sum(-1) * weight).sum(-1) / weight.sum(-1)
    torch.testing.assert_close(spectra.rest_entropy(found.entropy, found.first), expected, atol=1e-3, rtol=1e-3)
    assert (found.renyi2 <= found.entropy + 1e-5).all(), "Renyi's entropies fall with their order"


def test_rest_entropy_of_rows_with_known_answers() -> None:
    for n, a in ((4, 0.0), (8, 0.5), (5, 0.999)):
        row = torch.tensor([a] + [(1 - a) / n] * n, dtype=torch.float64)
        entropy = torch.special.entr(row).sum()
        rest = spectra.rest_entropy(entropy[None], row[:1])
        assert float(rest.exp()) == pytest.approx(n, rel=1e-6)
    wholly = spectra.rest_entropy(torch.zeros(3), torch.ones(3))
    assert float(wholly) == 0


def test_effective_rank_of_maps_with_known_answers() -> None:
    same = torch.full((6, 6), 1 / 6)
    assert float(spectra.effective_rank(spectra.singular_values(same))) == pytest.approx(1, abs=1e-6)
    assert float(spectra.effective_rank(spectra.singular_values(torch.eye(6)))) == pytest.approx(6)
    halves = torch.block_diag(torch.full((3, 3), 1 / 3), torch.full((3, 3), 1 / 3))
    assert float(spectra.effective_rank(spectra.singular_values(halves))) == pytest.approx(2, abs=1e-6)


def test_summary_against_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    found = {}
    for arm in ARMS:
        weights = torch.rand(2, 4, 3, 5, 7, generator=generator, dtype=torch.float64)
        maps = weights / weights.sum(-1, keepdim=True)
        entropy = torch.special.entr(maps).sum(-1)
        found[arm] = smoothing.RowStatistics(entropy, -maps.square().sum(-1).log(), maps[..., 0])
    values = smoothing.summary(found)
    mean = {}
    for arm in ARMS:
        entropy = found[arm].entropy
        numbers = [float(entropy[0, t, h, q].exp()) for t in range(4) for h in range(3) for q in range(5)]
        got = values["by_layer"][arm]["effective_tokens"][0]["value"]
        assert got == pytest.approx(sum(numbers) / len(numbers))
        assert values["by_head"][arm][1][2] == pytest.approx(float(entropy[1, :, 2].exp().mean()), abs=1e-3)
        mean[arm] = float(entropy.exp().mean())
    ratio = values["effective_tokens_ratio"]
    assert ratio["value"] == pytest.approx(mean["without_bos"] / mean["with_bos"])
    assert ratio["low"] < ratio["value"] < ratio["high"]


def test_heads_shown_are_those_that_grow_most() -> None:
    lm = fake_lm(tiny_model("llama"))
    ids = torch.randint(3, 97, (LENGTH,), generator=torch.Generator().manual_seed(0))
    growth = torch.ones(4, 4)
    growth[2, 1], growth[0, 3] = 5.0, 3.0
    found = smoothing.shown(lm, ids, growth, smoothing.Smoothing(maps=2))
    assert found["heads"] == [{"layer": 2, "head": 1}, {"layer": 0, "head": 3}]
    assert found["with_bos"]["offset"] == 1
    assert len(found["with_bos"]["spectrum"]) == len(found["without_bos"]["spectrum"]) + 1 == LENGTH + 1


def test_position_bins_cover_every_position_once() -> None:
    for longest in (64, 100, 4096):
        positions = [p for low, high in smoothing.position_bins(longest) for p in range(low, high + 1)]
        assert positions == list(range(16, longest))


def test_bad_parameters() -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="at least one; not 0"):
        smoothing.measure(lm, smoothing.Smoothing(maps=0))
    with pytest.raises(FirstTokenError, match="at least two windows"):
        smoothing.measure_by_length(lm, smoothing.Smoothing(longest=30))
    out_of_memory = fake_lm(tiny_model("llama"))
    out_of_memory.model.get_decoder().register_forward_pre_hook(_no_memory)
    with pytest.raises(FirstTokenError, match="lower batch_tokens"):
        smoothing.rows(out_of_memory, torch.randint(3, 97, (1, 8)), "without_bos")


def _no_memory(*_: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")


def test_length_sweep_equals_short_runs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a long text are those of its beginnings."""
    lm = fake_lm(tiny_model("llama"))
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr(smoothing.texts, "long_text", lambda: "".join(LETTERS[3 + (i * i) % 90] for i in range(400)))
    values = smoothing.measure_by_length(lm, smoothing.Smoothing(longest=128, windows=2)).values
    ids = smoothing.texts.windows(lm, smoothing.texts.long_text(), 128, 2, "never")
    assert values["position"] == [24, 48, 96]
    for arm in ARMS:
        short = smoothing.rows(lm, ids[:, :64], arm, renyi2=False)
        expected = short.entropy[..., 32 - 1 :].exp().mean()
        assert values["effective_tokens"][arm][1]["value"] == pytest.approx(float(expected), rel=1e-4)


def values(shannon: tuple[float, float], renyi2: tuple[float, float], without: float) -> dict[str, Any]:
    def estimate(low: float, high: float) -> dict[str, Any]:
        return asdict(Estimate((low + high) / 2, low, high, 24))

    return {
        "effective_tokens_ratio": estimate(*shannon),
        "effective_tokens_renyi2_ratio": estimate(*renyi2),
        "effective_tokens_rest_ratio": estimate(0.8, 0.9),
        "first_token_mass": {"with_bos": estimate(0.5, 0.5), "without_bos": estimate(without, without)},
    }


@pytest.mark.parametrize(
    ("shannon", "renyi2", "without", "status"),
    [
        ((1.1, 1.2), (0.8, 0.9), 0.02, "reproduced"),
        ((0.8, 0.9), (1.1, 1.2), 0.02, "not reproduced"),
        ((0.9, 1.1), (1.1, 1.2), 0.02, "not reproduced"),
        ((1.1, 1.2), (1.1, 1.2), 0.4, "not measured"),
    ],
)
def test_shannon_alone_decides(
    shannon: tuple[float, float], renyi2: tuple[float, float], without: float, status: str
) -> None:
    assert smoothing.judge(values(shannon, renyi2, without)).status == status
