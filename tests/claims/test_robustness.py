"""Changes, weakened sinks and attacks against direct computation; the search is seeded and bounded."""

from __future__ import annotations

import random
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor

from fake import LETTERS, Letters, fake_lm
from firsttoken import texts
from firsttoken.claims.robustness import attacks, verdict
from firsttoken.claims.robustness import measure as robustness
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.interventions import forbid_key, in_every_layer, weaken_key
from firsttoken.records import Record
from firsttoken.texts import Passage, tokens
from tiny import tiny_model

TAIL = robustness.TAIL


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
    torch.testing.assert_close(robustness.divergence(before, after), expected)
    assert robustness.divergence(before, before).abs() < 1e-6


def test_changes_are_small_and_before_the_tail(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    row = some_ids(1, 64)[0]
    monkeypatch.setattr(robustness, "token_synonyms", lambda lm: {int(row[30]): 4})
    for kind in ("swap", "synonym", "noise"):
        for seed in range(5):
            before, after = robustness.changed(lm, row, kind, random.Random(seed))
            different = (before != after).nonzero()[:, 0].tolist()
            assert len(different) == {"swap": 2, "synonym": 1, "noise": 0}[kind]
            assert all(20 <= place < 64 - TAIL for place in different)
    swapped = robustness.changed(lm, row, "swap", random.Random(0))[1]
    assert sorted(swapped.tolist()) == sorted(row.tolist())
    monkeypatch.setattr(robustness, "token_synonyms", lambda lm: {})
    assert robustness.changed(lm, row, "synonym", random.Random(0)) is None
    with pytest.raises(FirstTokenError, match="no change"):
        robustness.changed(lm, row, "shout", random.Random(0))


def test_a_typo_exchanges_two_letters() -> None:
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz ", "hello", "world"]
    tokenizer = Letters(words)
    lm = fake_lm(tiny_model("llama"), tokenizer)
    row = torch.tensor(tokenizer("one two six hello world " * 4, add_special_tokens=False).input_ids)
    before, after = robustness.changed(lm, row, "typo", random.Random(0))
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
    with robustness.noisy_embeddings(lm, 0), torch.no_grad():
        noisy, again = embed(ids), embed(ids)
    assert torch.equal(noisy, again)
    assert torch.equal(noisy[:, 0], plain[:, 0])
    size = plain.pow(2).mean(-1).sqrt()
    relative = (noisy - plain).pow(2).mean(-1).sqrt() / size
    assert float(relative[:, 1:].mean()) == pytest.approx(robustness.NOISE, rel=0.1)
    assert torch.equal(embed(ids), plain)


def test_sensitivity_against_direct_computation(lm: LanguageModel) -> None:
    rows = some_ids(3, 64)
    swaps = [robustness.changed(lm, row, "swap", random.Random(0)) for row in rows]
    # Pairs that begin with no text of the list, shorter ones too, as after a typo.
    shorter = [(before[5:], after[5:]) for before, after in swaps[1:]]
    pairs = {"swap": swaps, "typo": shorter, "noise": [(row, row) for row in rows]}
    reacted = robustness.sensitivity(lm, rows, pairs, "intact", None, 0)
    assert list(reacted.shifts) == list(pairs)

    def predicted(row: Tensor, noise: bool = False) -> Tensor:
        given = torch.cat([torch.tensor([1]), row])[None]
        with robustness.noisy_embeddings(lm, 0) if noise else nullcontext(), torch.no_grad():
            return lm.model(given).logits[0, -TAIL:].softmax(-1)

    for kind, of_kind in pairs.items():
        for value, (before, after) in zip(reacted.shifts[kind], of_kind, strict=True):
            p, q = predicted(before), predicted(after, kind == "noise")
            assert float(value) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), abs=1e-4)
    for value, row in zip(reacted.loss, rows, strict=True):
        loss = -predicted(row)[:-1].log().gather(1, row[-TAIL + 1 :, None]).mean()
        assert float(value) == pytest.approx(float(loss), abs=1e-4)
    forbidden = robustness.sensitivity(lm, rows, pairs, "forbidden", None, 0)
    assert forbidden.shifts["swap"].ne(reacted.shifts["swap"]).any()
    with pytest.raises(FirstTokenError, match="no arm"):
        robustness.sink_arm(lm, "gone", None)


def test_ratio_by_hand() -> None:
    without = {"a": torch.tensor([2.0, 4.0]), "b": torch.tensor([1.0, 1.0])}
    with_it = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
    combined = robustness.ratio(without, with_it, 0)
    assert combined["value"] == pytest.approx((2 * 0.5) ** 0.5)
    assert combined["n"] == 2


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


def test_special_tokens_of_a_user_are_dropped(lm: LanguageModel) -> None:
    lm.tokenizer.all_special_ids = [0, 1, 2]
    assert attacks.without_special(lm, [1, 5, 6, 1, 2, 7]) == [5, 6, 7]


# -- verdicts and messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "weak", "status"),
    [
        (1.5, 1.2, "partly"), (1.5, 1.0, "partly"), (0.8, 1.2, "partly"), (0.8, 1.0, "inconclusive"),
        (0.8, 0.9, "not reproduced"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("broken", [False, True])
def test_verdicts(gone: float, weak: float, status: str, broken: bool) -> None:
    """A broken model shows nothing, neither for the claim nor against it."""

    def estimate(value: float) -> dict:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 9}

    arms = {arm: {"loss": estimate(3.0)} for arm in robustness.ARMS}
    if broken:
        arms["no sink"] = {"loss": estimate(6.1)}
        status = "partly" if weak > 1.1 else "inconclusive"
    values = {"sensitivity_ratio": estimate(gone), "weakened_ratio": estimate(weak), "arms": arms}
    assert verdict.judge(Record("robustness", "some-model", {}, values, {})).status == status


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text_tokens": 59}, "text_tokens must be at least 60, not 59"),
        ({"passages": 1}, "passages must be at least 2, not 1"),
        ({"suffix": 0}, "suffix must be at least 1, not 0"),
        ({"candidates": 1}, "candidates must be at least 2, not 1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_bad_parameters(asked: dict[str, int], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        robustness.Parameters(**asked)
