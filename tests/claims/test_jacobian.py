"""Gains by forward-mode products, against whole Jacobians, finite differences and models that are linear."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import pytest
import torch

from fake import fake_lm
from firsttoken.claims.jacobian import measure as jacobian
from firsttoken.claims.jacobian import verdict
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import jacobian as gains_
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.probe import probe
from firsttoken.probe.interventions import Hook, in_every_layer, weaken_key
from firsttoken.probe.residual_stream import push_forward, residual_stream, watch
from firsttoken.records import Record
from jacobian_exact import exact_jacobian
from tiny import tiny_model

LENGTH = 7
ARCHITECTURES = ("llama", "gemma2-softcap", "gemma3_text", "qwen3", "gpt2", "mixtral")
IDS = torch.randint(3, 97, (LENGTH,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_products_equal_the_exact_jacobian(name: str) -> None:
    model = tiny_model(name).double()
    tangent = torch.randn(1, LENGTH, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen: dict[int, torch.Tensor] = {}
    push_forward(model, IDS[None], tangent, lambda layer, v, jv: seen.update({layer: jv}))
    assert sorted(seen) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(seen[0], tangent)
    if name == "mixtral":
        model.set_experts_implementation("eager")  # the reference's doubles fit no fused kernel
    for layer in (1, 4):
        expected = torch.einsum("jaib,ib->ja", exact_jacobian(model, IDS[None], layer), tangent[0])
        # Norms go through float32 even in a model of doubles.
        torch.testing.assert_close(seen[layer][0], expected, atol=1e-5, rtol=1e-4)


def test_products_of_a_changed_model_equal_its_exact_jacobian() -> None:
    model = tiny_model("llama").double()
    tangent = torch.randn(1, LENGTH, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def products(hook: Hook | None) -> dict[int, torch.Tensor]:
        seen: dict[int, torch.Tensor] = {}
        push_forward(model, IDS[None], tangent, lambda layer, v, jv: seen.update({layer: jv}), hook)
        return seen

    dosed, untouched = products(in_every_layer(partial(weaken_key, nats=2.0))), products(None)
    assert not torch.allclose(dosed[4], untouched[4], rtol=1e-2)
    for layer in (1, 4):
        expected = torch.einsum("jaib,ib->ja", exact_jacobian(model, IDS[None], layer, first_key=-2.0), tangent[0])
        torch.testing.assert_close(dosed[layer][0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "nats"), [("llama", 0.0), ("llama", 2.0), ("gemma3_text", 2.0)])
def test_products_equal_finite_differences(name: str, nats: float) -> None:
    model = tiny_model(name).double()
    hook = in_every_layer(partial(weaken_key, nats=nats)) if nats else None
    tangent = torch.randn(1, LENGTH, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen: dict[int, torch.Tensor] = {}
    push_forward(model, IDS[None], tangent, lambda layer, v, jv: seen.update({layer: jv}), hook)

    def moved(step: float) -> torch.Tensor:
        states: list[torch.Tensor] = []

        def see(layer: int, v: torch.Tensor) -> torch.Tensor | None:
            states.append(v)
            return v + step * tangent if layer == 0 else None

        with torch.no_grad(), watch(model, see), probe(model, hook=hook):
            model.model(IDS[None], use_cache=False)
        return states[-1]

    # Embeddings are about 0.02 in size; a larger step is not small, a smaller one drowns in float32 norms.
    step = 1e-4
    difference = (moved(step) - moved(-step)) / (2 * step)
    assert (difference - seen[4]).norm() < 0.01 * seen[4].norm()


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_gains_estimate_the_frobenius_norm(name: str, arm: Arm) -> None:
    lm = fake_lm(tiny_model(name).double())
    estimated = gains_.gains(lm, IDS, [2, 5], 200, arm, batch_tokens=64 * LENGTH)
    inputs, first = start(lm, IDS[None], arm)
    whole = exact_jacobian(lm.model, inputs, 4)
    for row, source in enumerate((2, 5)):
        exact = whole[first:, :, first + source].square().sum((1, 2)).div(32).sqrt()
        gain, error = (
            estimated.gain[row, -1].double(),
            estimated.relative_error[row, -1].double() * estimated.gain[row, -1],
        )
        assert ((gain - exact).abs() <= 4 * error + 1e-6).all()
        assert (error[source:] < 0.15 * exact[source:]).all()
        assert estimated.squared[row, ..., :source].abs().max() == 0, "nothing reaches back in time"
    stream = residual_stream(lm.model, inputs)[:, 0, first:]
    torch.testing.assert_close(estimated.norms, stream.norm(dim=-1), atol=1e-4, rtol=1e-4)
    # One number by hand: the relative gain of source 2 at the last token after the last layer.
    expected = estimated.gain[0, -1, -1] * stream[0, 2].norm() / stream[-1, -1].norm()
    torch.testing.assert_close(estimated.relative[0, -1, -1], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_batching_changes_nothing_and_implementations_come_back(name: str) -> None:
    lm = fake_lm(tiny_model(name))
    before, experts = lm.model.config._attn_implementation, lm.model.get_experts_implementation()
    together = gains_.gains(lm, IDS, [1, 3], 3)
    alone = gains_.gains(lm, IDS, [1, 3], 3, batch_tokens=1)
    torch.testing.assert_close(together.squared, alone.squared, atol=1e-6, rtol=1e-4)
    assert lm.model.config._attn_implementation == before
    assert lm.model.get_experts_implementation() == experts


def test_bins_cover_every_distance_once() -> None:
    for length in (2, 9, 96):
        covered = [d for low, high in jacobian.distance_bins(length) for d in range(low, high + 1)]
        assert covered == list(range(1, length))


def test_sources_come_from_every_part() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        a, b, c = gains_.choose_sources(20, 3, generator)
        assert 1 <= a < 7 <= b < 13 <= c < 19
    with pytest.raises(FirstTokenError, match="lower `sources`"):
        gains_.choose_sources(4, 3, generator)


def test_summary_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    of_arm: dict[Arm, list[gains_.Gains]] = {}
    for arm in ARMS:
        of_arm[arm] = []
        for at in ([1, 4], [2, 3]):
            squared = torch.rand(2, 3, 3, 8, generator=generator)
            for row, i in enumerate(at):
                squared[row, ..., :i] = 0
            norms = torch.rand(3, 8, generator=generator) + 0.5
            of_arm[arm].append(gains_.Gains(squared, norms, torch.tensor(at)))
    values = jacobian.summary(of_arm)
    means = {}
    for arm in ARMS:
        per_source = []
        for g in of_arm[arm]:
            for row, i in enumerate(g.sources.tolist()):
                later = [float(g.relative[row, 2, j]) for j in range(i + 1, 8)]
                per_source.append(sum(later) / len(later))
        means[arm] = sum(per_source) / 4
        assert values["by_layer"][arm]["later"][2]["value"] == pytest.approx(means[arm], rel=1e-5)
        at_two = [float(g.relative[r, -1, i + 1]) for g in of_arm[arm] for r, i in enumerate(g.sources.tolist())]
        assert values["by_distance"][arm][0]["value"] == pytest.approx(sum(at_two) / 4, rel=1e-5)
    assert values["by_layer"]["ratio"][1]["value"] == pytest.approx(means["without_bos"] / means["with_bos"], rel=1e-5)
    assert values["pairs"] == sum(7 - i for i in (1, 4, 2, 3))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"directions": 1}, "directions must be at least 2, not 1"),
        ({"sources": 0}, "sources must be at least 1, not 0"),
        ({"passages": 1}, "passages must be at least 2, not 1"),
        ({"sources": 4, "text_tokens": 5}, "text_tokens must be at least 6, not 5"),
    ],
)
def test_bad_parameters(asked: dict[str, int], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        jacobian.Parameters(**asked)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="at least 2"):
        gains_.gains(lm, IDS, [2], 1)
    with pytest.raises(FirstTokenError, match="There is no token 7 in a text of 7"):
        gains_.gains(lm, IDS, [7], 2)

    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    monkeypatch.setattr(gains_, "push_forward", full)
    with pytest.raises(FirstTokenError, match="lower batch_tokens"):
        gains_.gains(lm, IDS, [2], 2)


@pytest.mark.parametrize(
    ("ratio", "without", "status"),
    [
        ((1.4, 1.9), 0.02, "reproduced"),
        ((0.9, 1.1), 0.02, "not reproduced"),
        ((0.5, 0.9), 0.02, "not reproduced"),
        ((1.4, 1.9), 0.45, "inconclusive"),
    ],
)
def test_verdicts_follow_from_the_numbers(ratio: tuple[float, float], without: float, status: str) -> None:
    def estimate(low: float, high: float) -> dict[str, Any]:
        return asdict(Estimate((low + high) / 2, low, high, 8))

    mass = {"with_bos": estimate(0.5, 0.5), "without_bos": estimate(without, without)}
    values = {"pairs": 700, "later_over_own_ratio": estimate(*ratio), "first_token_mass": mass}
    values |= dict.fromkeys(("sensitivity_ratio", "own_ratio"), estimate(2.0, 3.0))
    assert verdict.judge(Record("jacobian", "some-model", {}, values, {})).status == status
