"""The chapter `dose`: its outcome against a loop, its controls matched in loss, its verdict for every case."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fake import LETTERS, Letters, fake_lm
from firsttoken import records, statistics
from firsttoken.claims.dose import gains, measure, runs, verdict
from firsttoken.claims.dose.measure import Parameters
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution import shared_pass
from firsttoken.execution.streaming import StreamedModel
from firsttoken.measures import dose, equal_loss
from firsttoken.measures.bos_contrast import start
from firsttoken.measures.jacobian import choose_sources, later_and_own
from firsttoken.measures.matching_strength import matching_strength
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.interventions import in_every_layer, weaken_key
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.records import Record
from jacobian_exact import exact_jacobian
from saved_models import saved
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS, LENGTH, EACH = 4, 20, 3
SMALL = Parameters(passages=5, calibration_passages=5, edits_per_text=EACH, length=LENGTH)


def ids(rows: int = TEXTS, length: int = LENGTH) -> Tensor:
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(3))


def letters(rows: int) -> list[str]:
    return ["".join(LETTERS[token] for token in row) for row in ids(rows).tolist()]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return fake_lm(tiny_model("llama"))


@pytest.fixture(scope="module")
def values(lm: LanguageModel) -> JSON:
    return measure.run(lm, SMALL, letters(10))


# -- what is measured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["with_bos", "without_bos"])
def test_edits_are_where_they_may_be_and_protected(lm: LanguageModel, arm: Any) -> None:
    edited = runs.prepare(lm, ids(), arm, EACH, seed=0)
    first = int(arm == "with_bos")
    assert edited.first == first
    assert len(edited.edits) == TEXTS * EACH
    for text in range(TEXTS):
        keys = [edit.position + first for edit in edited.edits if edit.text == text]
        assert keys == sorted(set(keys))
        assert min(keys) >= 1
        assert max(keys) <= first + LENGTH - 2
        assert edited.protected[text].nonzero()[:, 0].tolist() == keys
        assert int(edited.other_keys[text]) not in [0, *keys]
    assert all(edit.token != ids()[edit.text, edit.position] for edit in edited.edits)


class SeveralFirst(Letters):
    """Puts several tokens first, as GLM's tokenizer does two."""

    first: tuple[int, ...] = (1, 2)

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        seen = super().__call__(text, add_special_tokens=False).input_ids
        return SimpleNamespace(input_ids=[*self.first, *seen] if add_special_tokens else seen)


def test_no_edit_is_in_front_of_the_text() -> None:
    """Where two tokens stand there; of forty texts, some draw the first key that may be drawn."""
    lm = fake_lm(tiny_model("llama"), SeveralFirst())
    edited = runs.prepare(lm, ids(40), "with_bos", EACH, seed=0)
    assert edited.first == 2
    positions = [edit.position for edit in edited.edits]
    assert (min(positions), max(positions)) == (0, LENGTH - 2)
    for text in range(40):
        keys = [edit.position + 2 for edit in edited.edits if edit.text == text]
        assert edited.protected[text].nonzero()[:, 0].tolist() == keys
        assert int(edited.other_keys[text]) not in [0, 1, *keys]
    moved = runs.done(lm, {"plain": runs.moving(lm, edited, 4096)})["plain"]
    assert moved.relative.isfinite().all()


def test_a_long_prefix_leaves_no_room_for_edits() -> None:
    tokenizer = SeveralFirst()
    tokenizer.first = (1,) * 8
    with pytest.raises(FirstTokenError, match="puts 8 tokens before a text, which leaves 4"):
        runs.prepare(fake_lm(tiny_model("llama"), tokenizer), ids(2, 4), "with_bos", EACH, seed=0)


def test_the_outcome_is_that_of_a_loop(lm: LanguageModel) -> None:
    """One text and one edit at a time, with two whole residual streams, under a dose."""
    edited = runs.prepare(lm, ids(), "without_bos", EACH, seed=0)
    change = dose.dosed(-2.0, torch.zeros(TEXTS, dtype=torch.long))
    moved = runs.done(lm, {"dose": runs.moving(lm, edited, 4096, change)})["dose"]
    sums = torch.zeros(TEXTS, 2)
    for edit in edited.edits:
        before, after = ids()[edit.text][None], ids()[edit.text][None].clone()
        after[0, edit.position] = edit.token
        of_one = runs.Batch(0, before, (edit.text,), torch.tensor([]), ())
        with probe(lm.model, hook=change(of_one)), torch.no_grad():
            v, w = (residual_stream(lm.model, row)[:, 0] for row in (before, after))  # (layer + 1, token, width)
        for layer in range(1, len(v)):
            distances = [
                float((w[layer, token] - v[layer, token]).norm() / v[layer, token].norm()) for token in range(LENGTH)
            ]
            later = distances[edit.position + 1 :]
            sums[edit.text, 0] += sum(later) / len(later) / (len(v) - 1)
            sums[edit.text, 1] += distances[edit.position] / (len(v) - 1)
    torch.testing.assert_close(moved.relative.float(), sums, atol=1e-4, rtol=1e-4)


def test_what_is_seen_under_a_dose_is_what_an_own_pass_sees(lm: LanguageModel) -> None:
    edited = runs.prepare(lm, ids(11), "with_bos", EACH, seed=0)
    change = dose.dosed(2.0, torch.zeros(11, dtype=torch.long))
    seen = runs.done(lm, {"dose": runs.looking(lm, edited, change)})["dose"]
    rows = torch.cat([torch.ones(11, 1, dtype=torch.long), ids(11)], dim=1)
    whole = runs.Batch(0, rows, tuple(range(11)), torch.tensor([]), ())
    with probe(lm.model, hook=change(whole), entropy=True) as p, torch.no_grad():
        logits = lm.model(rows, use_cache=False).logits[:, 1:-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten(), reduction="none")
    torch.testing.assert_close(seen.loss.float(), losses.view(11, -1).mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.mass.float(), p.attention.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen.entropy.float(), p.entropy.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)


def test_a_record_has_every_arm_and_control(values: JSON) -> None:
    assert values["edits"] == 15
    mass = [estimate["value"] for estimate in values["by_dose"]["mass"]]
    assert mass == sorted(mass, reverse=True)  # doses go from more to less
    assert values["by_dose"]["outcome"][values["doses"].index(0.0)] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 5}
    untouched = mass[values["doses"].index(0.0)]
    for name in ("noise", "sharpened", "flattened"):
        assert len(values[name]["by_strength"]) == 3
        for one in values[name]["by_strength"]:
            assert one["mass"]["value"] == pytest.approx(untouched, abs=1e-6)
    assert [one["seed"] for one in values["noise"]["by_seed"]] == [0, 1, 2]
    for other in values["other_key"]:
        assert other["mass_on_key"]["value"] > 2 * other["untouched_mass_on_key"]["value"]
    assert verdict.judge(record_of(values)).status in ("reproduced", "partly", "not reproduced", "inconclusive")


def said_by(lm: LanguageModel) -> Tensor:
    """Texts that a model predicts well, so that damage to it raises its loss: (text, token) without BOS."""
    rows = torch.cat([torch.ones(8, 1, dtype=torch.long), torch.arange(3, 11)[:, None]], dim=1)
    with torch.no_grad():
        for _ in range(LENGTH):
            rows = torch.cat([rows, lm.model(rows, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return rows[:, 1:]


def test_the_controls_cost_what_the_dose_costs_on_the_texts_they_are_set_on(lm: LanguageModel) -> None:
    edited = runs.prepare(lm, said_by(lm), "with_bos", EACH, seed=0)
    scale = runs.Scale(lm, edited)
    plain = scale.losses({"untouched": runs.untouched})["untouched"]

    def rise(sigma: float) -> float:
        return float((scale.losses({"noise": partial(dose.noisy, sigma, 0)})["noise"] - plain).mean())

    target = 0.1
    sigma = matching_strength(rise, target, 1.0)
    assert rise(sigma) == pytest.approx(target, rel=0.1)


def test_a_control_is_read_off_at_the_dose_s_loss_in_every_draw() -> None:
    """Against a bootstrap written out, with numpy's interpolation."""
    generator = torch.Generator().manual_seed(0)
    n, strengths = 9, (0.0, 0.1, 0.3, 0.6)
    sums = [torch.rand(n, 2, generator=generator).double() + 0.5 for _ in range(5)]
    costs = [at + 0.02 * torch.rand(n, generator=generator).double() for at in strengths] + [
        0.05 + 0.4 * torch.rand(n, generator=generator).double()
    ]
    costs[0] = torch.zeros(n).double()
    ran = [
        runs.Ran(runs.Moved(arm, arm, arm), runs.Seen(2 + cost, cost, cost, cost))
        for arm, cost in zip(sums, costs, strict=True)
    ]
    untouched, *control, dosed = ran
    arms = [measure.sums_of(one, untouched) for one in (untouched, *control, dosed)]
    compared = equal_loss.compare(torch.stack(arms, dim=1), measure.points, seed=5)

    def outcome(rows: Tensor, arm: Tensor) -> float:
        spread, own = arm[rows].sum(0).tolist()
        spread_0, own_0 = sums[0][rows].sum(0).tolist()
        return float(spread / own / (spread_0 / own_0))

    def of(rows: Tensor) -> tuple[float, float, float]:
        rises = [float(cost[rows].mean()) for cost in costs]
        level = float(np.interp(rises[4], rises[:4], [outcome(rows, arm) for arm in sums[:4]]))
        return level, outcome(rows, sums[4]) - level, rises[3] - rises[4]

    draws = torch.tensor([of(rows) for rows in drawn(n, seed=5)]).double()
    ends = torch.quantile(draws, torch.tensor([0.025, 0.975]).double(), dim=0).T.tolist()
    for name, value, (low, high) in zip(
        ("at_equal_loss", "dose_minus_control", "headroom"), of(torch.arange(n)), ends, strict=True
    ):
        assert compared[name]["value"] == pytest.approx(value)
        assert (compared[name]["low"], compared[name]["high"]) == pytest.approx((low, high), abs=1e-6)


def drawn(n: int, seed: int) -> Tensor:
    return torch.randint(n, (statistics.RESAMPLES, n), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("at", "height"), [(-1.0, 1.0), (0.0, 1.0), (0.05, 1.5), (0.1, 2.0), (0.15, 2.5), (0.2, 3.0), (0.5, 4.0)]
)
def test_the_first_segment_that_reaches_the_loss_counts(at: float, height: float) -> None:
    """The line goes back once, as losses of drawn texts may; outside of it its ends hold."""
    x, y = torch.tensor([0.0, 0.2, 0.1, 0.3]), torch.tensor([1.0, 3.0, 0.0, 4.0])
    assert float(equal_loss.interpolate(x, y, torch.tensor(at))) == pytest.approx(height)


def test_the_measured_texts_are_none_of_the_pilots_or_of_the_first_version() -> None:
    """Both began with the first text; the first version measured 24 and set its controls on 24 more."""
    seen = measure.passages(replace(Parameters(), skip_passages=0, passages=47, calibration_passages=1))
    chosen = measure.passages(Parameters())
    assert len(set(chosen)) == Parameters().passages + Parameters().calibration_passages
    assert not set(seen) & set(chosen[: Parameters().passages])


@pytest.mark.parametrize(
    "wrong",
    [{"passages": 1}, {"edits_per_text": 0}, {"length": 9}, {"skip_passages": -1}, {"calibration_passages": 0}],
)
def test_parameters_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(FirstTokenError, match=next(iter(wrong))):
        Parameters(**wrong)  # type: ignore[arg-type]


# -- from disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_oss-sinks"])
def test_every_arm_streams_from_disk(name: str, tmp_path: Path, own_cache: None) -> None:
    """Several batches of edits and of texts, each arm against the model in memory."""
    lm = saved(name, tmp_path / "model")
    edited = runs.prepare(lm, ids(9), "with_bos", 1, seed=0)
    free: dict[str, runs.Make] = {
        "plain": runs.untouched,
        "weaker": partial(measure.on_first, -2.0),
        "other": partial(measure.on_other, 4.0, edited.other_keys),
    }
    holding = {kind: measure.control(kind, 0.7) for kind in ("noise", "sharpened", "flattened")}

    def ran(execution: str) -> dict[str, runs.Ran]:
        bench = runs.Bench(lm, edited, 320, execution)
        return bench.run(free) | bench.run(holding)

    streamed = ran("streamed")
    assert "model" not in vars(lm)
    resident = ran("resident")
    assert list(streamed) == list(resident) == [*free, *holding]
    for arm, expected in resident.items():
        for part in ("moved", "seen"):
            of_arm, wanted = (vars(getattr(one, part)) for one in (streamed[arm], expected))
            torch.testing.assert_close(of_arm, wanted, atol=1e-5, rtol=1e-4)
        assert arm == "plain" or not torch.allclose(expected.moved.relative, resident["plain"].moved.relative)


def test_the_chapter_streams_with_few_readings(
    tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = statistics._draws
    monkeypatch.setattr(statistics, "_draws", lambda n, generator, resamples=0: draws(n, generator, 50))
    lm_in_memory = fake_lm(tiny_model("llama"))
    opened: list[StreamedModel] = []

    class Noted(StreamedModel):
        def __init__(self, lm: LanguageModel) -> None:
            super().__init__(lm)
            opened.append(self)

    monkeypatch.setattr(shared_pass, "StreamedModel", Noted)
    asked: list[int] = []
    seek = measure.matching_strengths

    def noted(rises: Any, *given: Any) -> Any:
        def counted(strengths: Any) -> Any:
            asked.append(len(strengths))
            return rises(strengths)

        return seek(counted, *given)

    monkeypatch.setattr(measure, "matching_strengths", noted)
    lm = saved("llama", tmp_path / "model")
    passages = ["".join(LETTERS[token] for token in row) for row in said_by(lm_in_memory).tolist()]
    asking = replace(SMALL, passages=4, calibration_passages=4, edits_per_text=1, batch_tokens=80)
    streamed = measure.run(lm, replace(asking, execution="streamed"), passages)
    assert "model" not in vars(lm)
    assert asked[0] == 3, "noise, sharpening and flattening are tried together"
    assert len(opened) == 3 + len(asked)
    for one in opened:
        assert one.checkpoint.bytes_read == sum(entry.bytes for entry in one.checkpoint.tensors.values())
    resident = measure.run(lm, replace(asking, execution="resident"), passages)
    assert list(records.differences(streamed, resident, 1e-4)) == []


# -- the verdict --------------------------------------------------------------------------------------------


def estimate(value: float, half: float = 0.02) -> JSON:
    return {"value": value, "low": value - half, "high": value + half, "n": 24}


def case(
    more: float = 0.8, less: float = 1.2, difference: float = 0.1, cost: float = 0.1, headroom: float = 0.05
) -> JSON:
    outcome = {2.0: 0.6, 1.0: more, 0.0: 1.0, -1.0: less, -2.0: 1.5, -4.0: 1.6, -8.0: 1.7}
    return {
        "doses": list(outcome),
        "by_dose": {"outcome": [estimate(value) for value in outcome.values()]},
        "control_dose": -1.0,
        "cost": estimate(cost),
        "noise": {"headroom": estimate(headroom)},
        "sharpened": {"dose_minus_control": estimate(-0.1), "headroom": estimate(0.1)},
        "beyond_control": estimate(difference),
    }


def record_of(values: JSON) -> Record:
    return Record("dose", "tiny", records.recorded(Parameters()), values, {"model": {"name": "tiny"}})


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, "reproduced"),
        ({"more": 0.96}, "partly"),  # too small an effect: (b) alone
        ({"less": 1.04}, "partly"),
        ({"more": 0.96, "difference": 0.01}, "inconclusive"),
        ({"difference": 0.01}, "partly"),  # the interval of the difference contains 0
        ({"headroom": 0.01}, "partly"),  # the strongest noise does not surely cost more
        ({"headroom": -0.1}, "partly"),
        ({"cost": 0.07}, "partly"),
        ({"headroom": 0.01, "less": 1.01}, "inconclusive"),
        ({"more": 1.03}, "not reproduced"),
        ({"less": 0.97}, "not reproduced"),
        ({"difference": -0.03}, "not reproduced"),
        ({"difference": -0.03, "headroom": 0.01}, "partly"),  # an unmatched control decides nothing
        ({"difference": -0.03, "cost": 0.01}, "partly"),
    ],
)
def test_the_verdict(given: dict[str, Any], status: str) -> None:
    judged = verdict.judge(record_of(case(**given)))
    assert judged.status == status
    assert ("unmatched" in judged.sentence) == (given.get("headroom", 1) < 0.02)
    assert ("cannot be decided" in judged.sentence) == (status == "inconclusive")


# -- small changes ------------------------------------------------------------------------------------------


def test_gains_under_a_dose_are_those_of_whole_jacobians() -> None:
    """Many directions against every entry of the exact Jacobians, source by source and token by token."""
    lm = fake_lm(tiny_model("llama").double())
    prefix = lm.prefix("auto")
    asked = gains.Parameters(gains=2, sources=2, directions=300, length=9, batch_tokens=3000)
    values = gains.run(lm, asked, letters(2), (0.0, -2.0))
    rows = ids()[:2, : 9 - len(prefix)]
    shares = []
    for nats in (0.0, -2.0):
        later, own = 0.0, 0.0
        draw = torch.Generator().manual_seed(0)
        for row in rows:
            inputs, first = start(lm, row[None], "with_bos" if prefix else "without_bos")
            norms = norms_of(lm, inputs, nats)
            sources = [first + place for place in choose_sources(len(row), 2, draw)]
            for layer in range(1, len(norms)):
                moves = exact_jacobian(lm.model, inputs, layer, first_key=nats).square().sum((1, 3)).sqrt()
                for source in sources:
                    relative = moves[source:, source] * norms[0, source] / norms[layer, source:]
                    own += float(relative[0])
                    later += float(relative[1:].mean())
        shares.append(later / own)
    assert values["later_over_own"][0] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert values["later_over_own"][1]["value"] == pytest.approx(shares[1] / shares[0], rel=0.03)
    assert shares[1] / shares[0] != pytest.approx(1, abs=0.05)


def norms_of(lm: LanguageModel, inputs: Tensor, nats: float) -> Tensor:
    """||v_j^(l)|| under a dose, (layer + 1, token)."""
    with probe(lm.model, hook=in_every_layer(partial(weaken_key, nats=-nats))):
        return residual_stream(lm.model, inputs)[:, 0].norm(dim=-1)


def test_a_model_without_attention_output_has_no_later_tokens_and_no_dose() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    lm = fake_lm(model)
    of_dose = gains.gains(lm, ids()[0], [2, 5], 2, "without_bos", hook=in_every_layer(partial(weaken_key, nats=4.0)))
    untouched = gains.gains(lm, ids()[0], [2, 5], 2, "without_bos")
    torch.testing.assert_close(of_dose.squared, untouched.squared)
    later, own = later_and_own(of_dose.relative, of_dose.sources)
    assert later.abs().max() == 0
    assert own.min() > 0
