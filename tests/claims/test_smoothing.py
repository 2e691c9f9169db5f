"""Entropies and spectra against eager attention and against rows whose answer is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.claims.smoothing import verdict
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import spectra
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.records import Record
from tiny import tiny_model

LENGTH = 20


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("arm", ARMS)
def test_rows_equal_eager(name: str, arm: Arm) -> None:
    lm = fake_lm(tiny_model(name))
    ids = torch.randint(3, 97, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    rows = smoothing.rows(lm, ids, arm, batch_tokens=2 * LENGTH)
    inputs, first = start(lm, ids, arm)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(lm.model.base_model(inputs, output_attentions=True).attentions)[..., first + 1 :, :]
    torch.testing.assert_close(rows.entropy, torch.special.entr(maps).sum(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.renyi2, -maps.square().sum(-1).log(), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.first, maps[..., 0], atol=1e-5, rtol=0)
    # What is left of a row without its first entry, renormalised; every row weighted by how much is left.
    rest = maps[..., 1:] / maps[..., 1:].sum(-1, keepdim=True)
    weight = 1 - maps[..., 0]
    expected = (torch.special.entr(rest).sum(-1) * weight).sum(-1) / weight.sum(-1)
    torch.testing.assert_close(spectra.rest_entropy(rows.entropy, rows.first), expected, atol=1e-3, rtol=1e-3)
    assert (rows.renyi2 <= rows.entropy + 1e-5).all(), "Renyi's entropies fall with their order"


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
    of_arm = {}
    for arm in ARMS:
        weights = torch.rand(2, 4, 3, 5, 7, generator=generator, dtype=torch.float64)
        maps = weights / weights.sum(-1, keepdim=True)
        entropy = torch.special.entr(maps).sum(-1)
        of_arm[arm] = smoothing.RowStatistics(entropy, -maps.square().sum(-1).log(), maps[..., 0])
    values = smoothing.summary(of_arm)
    mean = {}
    for arm in ARMS:
        entropy = of_arm[arm].entropy
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
    shown = smoothing.shown(lm, ids, growth, smoothing.Parameters(maps=2))
    assert shown["heads"] == [{"layer": 2, "head": 1}, {"layer": 0, "head": 3}]
    assert shown["with_bos"]["offset"] == 1
    assert len(shown["with_bos"]["spectrum"]) == len(shown["without_bos"]["spectrum"]) + 1 == LENGTH + 1


def test_position_bins_cover_every_position_once() -> None:
    for longest in (64, 100, 4096):
        positions = [p for low, high in smoothing.position_bins(longest) for p in range(low, high + 1)]
        assert positions == list(range(16, longest))


def test_bad_parameters() -> None:
    for asked in ({"maps": 0}, {"passages": 1}, {"text_tokens": 1}):
        [(name, value)] = asked.items()
        with pytest.raises(FirstTokenError, match=f"{name} must be at least {value + 1}, not {value}"):
            smoothing.Parameters(**asked)
    with pytest.raises(FirstTokenError, match="longest_text_tokens must be at least 64, not 30"):
        smoothing.ByLength(longest_text_tokens=30)
    with pytest.raises(FirstTokenError, match="windows must be at least 2, not 1"):
        smoothing.ByLength(windows=1)


def test_out_of_memory_names_the_parameter() -> None:
    out_of_memory = fake_lm(tiny_model("llama"))
    out_of_memory.model.get_decoder().register_forward_pre_hook(_no_memory)
    with pytest.raises(FirstTokenError, match="lower batch_tokens"):
        smoothing.rows(out_of_memory, torch.randint(3, 97, (1, 8)), "without_bos")


def test_the_sweep_is_as_long_as_the_model_allows() -> None:
    lm = fake_lm(tiny_model("llama"))
    for limit, longest in ((129, 128), (100000, 4096)):
        lm.config.max_position_embeddings = limit
        assert smoothing.as_long_as(lm, smoothing.ByLength()) == smoothing.ByLength(longest_text_tokens=longest)
    lm.config.max_position_embeddings = 40
    with pytest.raises(FirstTokenError, match="reads at most 39 tokens of text; the length sweep needs 64"):
        smoothing.as_long_as(lm, smoothing.ByLength())


def _no_memory(*_: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")


def test_length_sweep_equals_short_runs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a long text are those of its beginnings."""
    lm = fake_lm(tiny_model("llama"))
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr(smoothing.texts, "long_text", lambda: "".join(LETTERS[3 + (i * i) % 90] for i in range(400)))
    values = smoothing.BY_LENGTH.record(lm, smoothing.ByLength(longest_text_tokens=128, windows=2)).values
    ids = smoothing.texts.windows(lm, smoothing.texts.long_text(), 128, 2, "never")
    assert values["position"] == [24, 48, 96]
    for arm in ARMS:
        short = smoothing.rows(lm, ids[:, :64], arm, renyi2=False)
        expected = short.entropy[..., 32 - 1 :].exp().mean()
        assert values["effective_tokens"][arm][1]["value"] == pytest.approx(float(expected), rel=1e-4)


def record_of(shannon: tuple[float, float], renyi2: tuple[float, float], without: float) -> Record:
    def estimate(low: float, high: float) -> dict[str, Any]:
        return asdict(Estimate((low + high) / 2, low, high, 24))

    values = {
        "effective_tokens_ratio": estimate(*shannon),
        "effective_tokens_renyi2_ratio": estimate(*renyi2),
        "effective_tokens_rest_ratio": estimate(0.8, 0.9),
        "first_token_mass": {"with_bos": estimate(0.5, 0.5), "without_bos": estimate(without, without)},
    }
    return Record("smoothing", "some-model", {}, values, {})


@pytest.mark.parametrize(
    ("shannon", "renyi2", "without", "status"),
    [
        ((1.1, 1.2), (0.8, 0.9), 0.02, "reproduced"),
        ((0.8, 0.9), (1.1, 1.2), 0.02, "not reproduced"),
        ((0.9, 1.1), (1.1, 1.2), 0.02, "not reproduced"),
        ((1.1, 1.2), (1.1, 1.2), 0.4, "inconclusive"),
    ],
)
def test_shannon_alone_decides(
    shannon: tuple[float, float], renyi2: tuple[float, float], without: float, status: str
) -> None:
    assert verdict.judge(record_of(shannon, renyi2, without)).status == status
