"""Changes, weakened sinks and attacks against direct computation; the search is seeded and bounded."""

from __future__ import annotations

import itertools
import random
from contextlib import nullcontext
from functools import partial
from math import exp
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fake import LETTERS, Letters, fake_lm
from firsttoken import texts
from firsttoken.claims.robustness import attacks, changes, controls, sensitivity, verdict
from firsttoken.claims.robustness import measure as robustness
from firsttoken.errors import FirstTokenError
from firsttoken.measures import score_changes
from firsttoken.measures.matched_control import SEEDS
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import forbid_key, in_every_layer, weaken_key
from firsttoken.records import Record, Verdict
from firsttoken.texts import Passage, tokens
from tiny import tiny_model

TAIL = changes.TAIL


def some_ids(batch: int = 2, length: int = 24) -> Tensor:
    return torch.randint(3, 97, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def lm() -> LanguageModel:
    return fake_lm(tiny_model("llama"))


def test_weakening_divides_the_odds(lm: LanguageModel) -> None:
    """In the first layer, whose scores do not depend on what was weakened before."""
    ids = some_ids()
    with torch.no_grad(), probe(lm.model, keys=[0]) as p:
        lm.model(ids)
    plain = p.per_layer()[0][..., 0]
    with torch.no_grad(), probe(lm.model, keys=[0], hook=in_every_layer(partial(weaken_key, nats=2.0))) as p:
        lm.model(ids)
    weak = p.per_layer()[0][..., 0]
    odds = plain / (1 - plain) / torch.tensor(2.0).exp()
    torch.testing.assert_close(weak[..., 1:], (odds / (1 + odds))[..., 1:], atol=1e-4, rtol=1e-3)
    assert (weak[..., 0] == 1).all()  # the first token has nothing else


def test_weakening_lies_between_nothing_and_forbidding(lm: LanguageModel) -> None:
    ids = some_ids()

    def run(change: object) -> torch.Tensor:
        with torch.no_grad(), probe(lm.model, hook=in_every_layer(change)):  # type: ignore[arg-type]
            return lm.model(ids).logits

    plain = lm.model(ids).logits.detach()
    torch.testing.assert_close(run(partial(weaken_key, nats=0.0)), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(partial(weaken_key, nats=1e4)), run(forbid_key), atol=1e-4, rtol=1e-4)
    assert (run(partial(weaken_key, nats=2.0)) - plain).abs().max() > 1e-2


def test_divergence_equals_torch() -> None:
    before, after = (torch.randn(5, 9).log_softmax(-1) for _ in range(2))
    expected = torch.nn.functional.kl_div(after, before, log_target=True, reduction="batchmean")
    torch.testing.assert_close(sensitivity.divergence(before, after), expected)
    assert sensitivity.divergence(before, before).abs() < 1e-6


def test_changes_are_small_and_before_the_tail(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    row = some_ids(1, 64)[0]
    monkeypatch.setattr(changes, "token_synonyms", lambda lm: {int(row[30]): 4})
    for kind in ("swap", "synonym", "noise"):
        for seed in range(5):
            before, after = changes.changed(lm, row, kind, random.Random(seed))
            different = (before != after).nonzero()[:, 0].tolist()
            assert len(different) == {"swap": 2, "synonym": 1, "noise": 0}[kind]
            assert all(20 <= place < 64 - TAIL for place in different)
    swapped = changes.changed(lm, row, "swap", random.Random(0))[1]
    assert sorted(swapped.tolist()) == sorted(row.tolist())
    monkeypatch.setattr(changes, "token_synonyms", lambda lm: {})
    assert changes.changed(lm, row, "synonym", random.Random(0)) is None
    with pytest.raises(FirstTokenError, match="no change"):
        changes.changed(lm, row, "shout", random.Random(0))


def test_a_typo_exchanges_two_letters() -> None:
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz ", "hello", "world"]
    tokenizer = Letters(words)
    lm = fake_lm(tiny_model("llama"), tokenizer)
    row = torch.tensor(tokenizer("one two six hello world " * 4, add_special_tokens=False).input_ids)
    before, after = changes.changed(lm, row, "typo", random.Random(0))
    a, b = (tokenizer.decode(x.tolist()) for x in (before, after))
    different = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    assert len(different) == 2
    assert different[1] == different[0] + 1
    assert sorted(a) == sorted(b)
    assert torch.equal(before[-TAIL:], after[-TAIL:])


def test_noise_spares_the_first_token_and_has_its_size(lm: LanguageModel) -> None:
    ids = some_ids(1, 200)
    embed = lm.model.get_input_embeddings()
    plain = embed(ids).detach()
    with changes.noisy_embeddings(lm, 0), torch.no_grad():
        noisy, again = embed(ids), embed(ids)
    assert torch.equal(noisy, again)
    assert torch.equal(noisy[:, 0], plain[:, 0])
    size = plain.pow(2).mean(-1).sqrt()
    relative = (noisy - plain).pow(2).mean(-1).sqrt() / size
    assert float(relative[:, 1:].mean()) == pytest.approx(changes.NOISE, rel=0.1)
    assert torch.equal(embed(ids), plain)


def predicted(lm: LanguageModel, row: Tensor, noise: bool = False) -> Tensor:
    """Probabilities of the next token at every token of a text, by a plain call of the model."""
    given = torch.cat([torch.tensor([1]), row])[None]
    with changes.noisy_embeddings(lm, 0) if noise else nullcontext(), torch.no_grad():
        return lm.model(given).logits[0].softmax(-1)


def some_pairs(rows: Tensor) -> changes.Pairs:
    """Two kinds for every text, and one that two of three have, whose pairs are shorter, as after a typo."""
    swaps = [changes.changed(None, row, "swap", random.Random(0)) for row in rows]  # type: ignore[arg-type]
    shorter = [None, *((pair[0][5:], pair[1][5:]) for pair in swaps[1:] if pair is not None)]
    return {"swap": swaps, "typo": shorter, "noise": [(row, row) for row in rows]}


def test_sensitivity_against_direct_computation(lm: LanguageModel) -> None:
    rows = some_ids(3, 64)
    pairs = some_pairs(rows)
    reacted = sensitivity.sensitivity(lm, rows, pairs, 0)
    assert list(reacted.shifts) == list(pairs)
    for kind, of_kind in pairs.items():
        for value, pair in zip(reacted.shifts[kind], of_kind, strict=True):
            if pair is None:
                assert value.isnan()
                continue
            p, q = (
                predicted(lm, row, noise)[-TAIL:] for row, noise in zip(pair, (False, kind == "noise"), strict=True)
            )
            assert float(value) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), abs=1e-4)
    for value, row in zip(reacted.loss, rows, strict=True):
        loss = -predicted(lm, row)[1:-1].log().gather(1, row[1:, None]).mean()
        assert float(value) == pytest.approx(float(loss), abs=1e-4)
    with sensitivity.sink_arm(lm, "forbidden", None, 2.0):
        forbidden = sensitivity.sensitivity(lm, rows, pairs, 0)
    assert forbidden.shifts["swap"].ne(reacted.shifts["swap"]).any()
    with pytest.raises(FirstTokenError, match="no arm"):
        sensitivity.sink_arm(lm, "gone", None, 2.0)


def test_the_fewest_nats_that_cost_enough(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {0.0: 3.0, 1.0: 3.01, 2.0: 3.2, 4.0: 3.5, 8.0: 3.1}
    asked: list[float] = []

    def sink_arm(lm: object, arm: str, means: object, nats: float) -> object:
        assert arm == "weakened"
        asked.append(nats)
        return nullcontext()

    monkeypatch.setattr(robustness, "sink_arm", sink_arm)
    monkeypatch.setattr(robustness, "losses", lambda lm, ids: torch.tensor([costs[asked[-1] if asked else 0.0]]))
    assert robustness.fitting_nats(lm, some_ids()) == 2.0
    assert asked == [1.0, 2.0]
    costs.update({2.0: 3.03, 4.0: 3.05, 8.0: 3.02})
    asked.clear()
    assert robustness.fitting_nats(lm, some_ids()) == 4.0


# -- controls of equal loss ---------------------------------------------------------------------------------


def test_a_control_of_no_strength_is_the_model_itself(lm: LanguageModel) -> None:
    rows = some_ids(3, 64)
    inputs = controls.Inputs.of(lm, rows, some_pairs(rows), 0)
    plain = sensitivity.sensitivity(lm, rows, inputs.pairs, 0)
    for one in controls.under(
        lm, inputs, [controls.Control(kind=kind, strength=0.0) for kind in ("noise", "sharpened")]
    ):
        torch.testing.assert_close(one.loss, plain.loss, atol=1e-4, rtol=0)
        for kind, shifts in plain.shifts.items():
            torch.testing.assert_close(one.shifts[kind], shifts, atol=1e-4, rtol=1e-3, equal_nan=True)


def test_controls_hold_the_attention_to_the_first_token_and_do_harm(lm: LanguageModel) -> None:
    rows = some_ids(2, 64)
    inputs = controls.Inputs.of(lm, rows, some_pairs(rows), 0)
    some = [controls.Control(kind="noise", strength=2.0), controls.Control(kind="sharpened", strength=1.0)]
    with controls.controlled(lm, 1, inputs, some) as p, torch.no_grad():
        logits = lm.model(sensitivity.with_prefix(lm, rows[1].expand(3, -1))).logits
    for attn in p.per_layer().values():  # (row, head, query, key)
        torch.testing.assert_close(attn[1:], attn[:1].expand(2, -1, -1, -1), atol=1e-5, rtol=1e-4)
    assert all(float((logits[n] - logits[0]).abs().max()) > 1e-2 for n in (1, 2))
    torch.testing.assert_close(logits[0].softmax(-1), predicted(lm, rows[1]), atol=1e-5, rtol=1e-4)


def alone(lm: LanguageModel, row: Tensor, inputs: controls.Inputs, control: controls.Control) -> Tensor:
    """The third text under one control, by two passes: one that notes the attention to the first token, one that
    disturbs, with numbers cut from the end of the text."""
    given = torch.cat([torch.tensor([1]), row])[None]
    size, longest = given.shape[1], inputs.protected.shape[1]
    protected = inputs.protected[2:3, longest - size :]
    held: dict[int, Tensor] = {}

    def note(module: Any, call: AttentionCall) -> AttentionCall:
        held[module.layer_idx] = score_changes.first_mass(call)
        return call

    def disturb(module: Any, call: AttentionCall) -> AttentionCall:
        layer = module.layer_idx
        if control.kind == "sharpened":
            return score_changes.sharpen(call, exp(control.strength), protected, held[layer])
        z = score_changes.noise(control.seed, 2, layer, call.query.shape[1], longest)
        z = z[None, :, longest - size :, longest - size :]
        return score_changes.add_noise(call, control.strength, z, protected, held[layer])

    with torch.no_grad():
        with probe(lm.model, keys=[0], hook=note):
            lm.model(given)
        with probe(lm.model, keys=[0], hook=disturb):
            return lm.model(given).logits[0, -TAIL:].log_softmax(-1)


def test_controls_of_a_batch_equal_those_one_by_one(lm: LanguageModel) -> None:
    rows = some_ids(3, 64)
    inputs = controls.Inputs.of(lm, rows, some_pairs(rows), 0)
    assert inputs.protected.shape[1] == 65  # BOS included
    some = [
        controls.Control(kind="noise", strength=1.5, seed=3),
        controls.Control(kind="sharpened", strength=0.7),
    ]
    for row in (*inputs.pairs["typo"][2], rows[2]):  # the first two are shorter than the others
        with controls.controlled(lm, 2, inputs, some):
            together = sensitivity.at_end(lm, row.expand(3, -1))[1:]
        for number, control in enumerate(some):
            torch.testing.assert_close(together[number], alone(lm, row, inputs, control), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 9, 4, 5], [2]),
        ([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], [1, 2]),
        ([1, 2, 3, 4, 5], [1, 7, 8, 9, 4, 5], [1, 2, 3]),  # of the longer text
        ([1, 7, 8, 9, 4, 5], [1, 2, 4, 5], [1, 2, 3]),
        ([1, 2, 2, 4, 5], [1, 2, 4, 5], [1]),  # one of two equal tokens is gone
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], []),
    ],
)
def test_touched_tokens(before: list[int], after: list[int], expected: list[int]) -> None:
    longer = max(len(before), len(after))
    places = list(range(longer))[changes.touched((torch.tensor(before), torch.tensor(after)))]
    assert places == expected


def test_ratio_by_hand() -> None:
    """Geometric mean over kinds of a ratio of sums; a text without a change of some kind counts in the others."""
    nan, none = torch.nan, torch.zeros(2).double()
    without = sensitivity.Sensitivity({"a": torch.tensor([2.0, 4.0]), "b": torch.tensor([1.0, nan])}, none)
    with_it = sensitivity.Sensitivity({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([2.0, nan])}, none)
    combined = robustness.ratio(without, with_it, 0)
    assert combined["value"] == pytest.approx((2 * 0.5) ** 0.5)
    assert combined["n"] == 2


def test_a_kind_that_no_drawn_text_has_is_left_out() -> None:
    """Half of all draws of these two texts lack one kind or the other; none may be without a number."""
    nan, none = torch.nan, torch.zeros(2).double()
    with_it = sensitivity.Sensitivity({"a": torch.tensor([1.0, nan]), "b": torch.tensor([nan, 2.0])}, none)
    without = sensitivity.Sensitivity({"a": torch.tensor([2.0, nan]), "b": torch.tensor([nan, 1.0])}, none)
    combined = robustness.ratio(without, with_it, 0)
    assert (combined["value"], combined["low"], combined["high"]) == pytest.approx((1.0, 0.5, 2.0))


def test_the_weakened_sink_is_compared_at_its_own_loss(lm: LanguageModel) -> None:
    """Strengths that enclose its cost; there, against numpy's interpolation of what a control does."""
    rows = some_ids(4, 64)
    inputs = controls.Inputs.of(lm, rows, some_pairs(rows), 0)
    intact = sensitivity.sensitivity(lm, rows, inputs.pairs, 0)
    noisy = controls.under(lm, inputs, [controls.Control(kind="noise", strength=1.0)])[0]
    dearer = sensitivity.Sensitivity(intact.shifts, torch.maximum(noisy.loss, intact.loss + 0.01))
    values = robustness.beside(lm, inputs, intact, dearer)
    cost = float((dearer.loss - intact.loss).mean())
    for kind in ("noise", "sharpened"):
        points = [(0.0, 1.0), *((p["loss_rise"]["value"], p["ratio"]["value"]) for p in values[kind]["by_strength"])]
        if all(a < b for (a, _), (b, _) in itertools.pairwise(points)):
            level = np.interp(cost, *zip(*points, strict=True))
            assert values[kind]["at_equal_loss"]["value"] == pytest.approx(level)
            assert values[kind]["dose_minus_control"]["value"] == pytest.approx(1 - level)
    assert len(values["noise"]["by_seed"]) == SEEDS


# -- attacks ------------------------------------------------------------------------------------------------


@pytest.fixture
def passages(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        Passage(f"p{i}", "d", "en", "".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(60))) for i in range(6)
    ]
    monkeypatch.setattr(texts, "passages", lambda language="en": tuple(made))


def test_attacks_leave_the_second_half_alone(lm: LanguageModel) -> None:
    rows = some_ids(4, 40)
    for name, change in attacks.attacks(lm, [7, 8, 9]).items():
        given = change(rows)
        assert torch.equal(given[:, -20:], rows[:, -20:]), name
        assert (given[:, 0] == 1).all() == (name != "other first")
        assert torch.equal(change(rows), given)
    made = attacks.attacks(lm, [7, 8, 9])
    assert made["found suffix"](rows)[0, 21:24].tolist() == [7, 8, 9]
    assert made["BOS inside"](rows)[0, 21] == 1
    assert made["repeated"](rows).shape[1] - made["none"](rows).shape[1] == attacks.REPEATS


def test_reaction_against_eager(lm: LanguageModel) -> None:
    rows = some_ids(3, 30)
    reaction = attacks.react(lm, rows, 10)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = lm.model(rows, output_attentions=True)
    mass = torch.stack(out.attentions)[..., -10:, 0].mean((0, 2, 3))
    torch.testing.assert_close(reaction.mass, mass, atol=1e-5, rtol=0)
    loss = torch.nn.functional.cross_entropy(
        out.logits[:, -10:-1].transpose(1, 2), rows[:, -9:], reduction="none"
    ).mean(1)
    torch.testing.assert_close(reaction.loss, loss, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("passages")
def test_the_search_is_seeded_and_bounded(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    measured = attacks.first_token_mass
    monkeypatch.setattr(attacks, "first_token_mass", lambda *given: calls.append(1) or measured(*given))
    suffix, masses = attacks.search(lm, 40, tokens=2, candidates=5, seed=3)
    assert len(calls) == 1 + 2 * 5
    assert len(suffix) == 2
    assert len(masses) == 3
    assert attacks.search(lm, 40, tokens=2, candidates=5, seed=3) == (suffix, masses)
    # Greedy: no candidate of the last step was better.
    rows = tokens.encode(lm, [p.text for p in texts.passages()[-4:]], 40, "never")
    bos = torch.ones(4, 1, dtype=torch.long)
    given = torch.cat([bos, rows[:, :20], torch.tensor(suffix).expand(4, -1), rows[:, 20:]], dim=1)
    assert float(attacks.react(lm, given, 20).mass.mean()) == pytest.approx(masses[-1])
    many, fewer = (attacks.search(lm, 40, tokens=1, candidates=n, seed=3)[1][1] for n in (20, 3))
    assert many <= fewer
    with pytest.raises(FirstTokenError, match="two candidates"):
        attacks.search(lm, 40, candidates=1)


@pytest.mark.usefixtures("passages")
@pytest.mark.parametrize(
    ("name", "tokens", "message"),
    [
        ("llama", 64, "fewer than the 64 that are read"),  # the texts of the search have 60
        ("gpt2", 230, "has 256 positions, and an attacked text has 2.. tokens; lower `text_tokens` to 2.. or less"),
    ],
)
def test_attacks_that_cannot_be_run_are_told_first(
    name: str, tokens: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(robustness, "calibrated", never)
    monkeypatch.setattr(robustness, "of_every_kind", lambda *_: {})
    if name == "gpt2":
        monkeypatch.setattr(attacks, "search_rows", lambda *_: None)
    lm = fake_lm(tiny_model(name))
    given = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(tokens)) for i in range(2)]
    with pytest.raises(FirstTokenError, match=message):
        robustness.run(lm, robustness.Parameters(passages=2, text_tokens=tokens), given)
    attacks.check_room(lm, some_ids(2, 40), 3)


def test_special_tokens_of_a_user_are_dropped(lm: LanguageModel) -> None:
    lm.tokenizer.all_special_ids = [0, 1, 2]
    assert attacks.without_special(lm, [1, 5, 6, 1, 2, 7]) == [5, 6, 7]


# -- verdicts and messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "weak", "beyond", "status"),
    [
        (1.5, 1.2, 0.2, "reproduced"), (0.8, 1.2, 0.2, "reproduced"), (1.5, 1.2, 0.0, "partly"),
        (1.5, 1.2, -0.2, "not reproduced"), (1.5, 1.0, 0.2, "partly"), (0.8, 1.0, 0.2, "inconclusive"),
        (0.8, 1.0, -0.2, "not reproduced"), (0.8, 0.9, 0.0, "not reproduced"),
    ],
)  # fmt: skip
def test_verdicts(gone: float, weak: float, beyond: float, status: str) -> None:
    assert judged(gone, weak, beyond).status == status


@pytest.mark.parametrize(
    ("gone", "weak", "status"), [(1.5, 1.2, "partly"), (1.5, 1.0, "inconclusive"), (0.8, 0.9, "inconclusive")]
)
def test_a_broken_model_shows_nothing(gone: float, weak: float, status: str) -> None:
    """Neither for the claim nor against it."""
    verdict = judged(gone, weak, 0.0, broken=True)
    assert verdict.status == status
    assert "broken" in verdict.sentence


@pytest.mark.parametrize(("cost", "headroom"), [(0.05, 0.1), (0.2, 0.0)])
def test_no_control_decides_that_is_not_matched(cost: float, headroom: float) -> None:
    assert judged(1.5, 1.2, 0.2, cost=cost, headroom=headroom).status == "partly"
    assert judged(1.5, 1.2, -0.2, cost=cost, headroom=headroom).status == "partly"


def judged(
    gone: float, weak: float, beyond: float, *, broken: bool = False, cost: float = 0.2, headroom: float = 0.1
) -> Verdict:
    def estimate(value: float) -> dict:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 9}

    arms = {arm: {"loss": estimate(3.0)} for arm in sensitivity.SINK_ARMS}
    if broken:
        arms["no sink"] = {"loss": estimate(6.1)}
    control = {"headroom": estimate(headroom), "dose_minus_control": estimate(beyond)}
    values = {
        "sensitivity_ratio": estimate(gone), "weakened_ratio": estimate(weak), "arms": arms, "nats": 2.0,
        "cost": estimate(cost), "noise": control, "sharpened": control, "beyond_control": estimate(beyond),
    }  # fmt: skip
    return verdict.judge(Record("robustness", "some-model", {}, values, {}))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text_tokens": 59}, "text_tokens must be at least 60, not 59"),
        ({"passages": 1}, "passages must be at least 2, not 1"),
        ({"suffix": 0}, "suffix must be at least 1, not 0"),
        ({"candidates": 1}, "candidates must be at least 2, not 1"),
    ],
)
def test_bad_parameters(asked: dict[str, int], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        robustness.Parameters(**asked)
