"""Edits and the spread of a change, against the model's own hidden states, loops and answers that are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken import models, statistics, texts
from firsttoken.claims.perturbation import figures, verdict
from firsttoken.claims.perturbation import measure as perturbation
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import spread as mixing
from firsttoken.measures.bos_arms import ARMS, Arm, sink_survives
from firsttoken.measures.bos_contrast import first_token_mass, start
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.records import Record
from firsttoken.texts import edits, tokens
from firsttoken.texts.edits import Edit
from tiny import tiny_model

LENGTH = 19
ARCHITECTURES = ("llama", "gemma3_text", "gpt2", "gpt_neox")


def given(count: int = 5) -> torch.Tensor:
    return torch.randint(3, 97, (count, LENGTH), generator=torch.Generator().manual_seed(1))


def edit(text: int, position: int, token: int = 7) -> Edit:
    return Edit(text, position, token, "random", "early")


# -- two runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_residual_stream_is_the_models_own_hidden_states(name: str) -> None:
    model, ids = tiny_model(name), given(3)
    states = residual_stream(model, ids)
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert len(states) == len(expected)
    # The last of the model's own comes after the final norm; all before it are the residual stream.
    for mine, own in zip(states[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(mine, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("arm", ARMS)
def test_distances_equal_two_separate_runs(name: str, arm: Arm) -> None:
    lm, ids = fake_lm(tiny_model(name)), given()
    moved = mixing.run_edits(lm, ids, [edit(3, 4), edit(1, 9)], arm)
    for row, e in enumerate((edit(3, 4), edit(1, 9))):
        after = ids[e.text].clone()
        after[e.position] = e.token
        pair, first = start(lm, torch.stack([ids[e.text], after]), arm)
        one, other = (residual_stream(lm.model, each[None])[:, 0, first:] for each in pair)
        torch.testing.assert_close(moved.absolute[row], (other - one).norm(dim=-1), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            moved.relative[row], (other - one).norm(dim=-1) / one.norm(dim=-1), atol=1e-4, rtol=1e-3
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("arm", ARMS)
def test_nothing_moves_before_the_edit(name: str, arm: Arm) -> None:
    moved = mixing.run_edits(fake_lm(tiny_model(name)), given(), [edit(0, LENGTH - 1), edit(1, 5)], arm)
    assert moved.relative[0, :, :-1].max() < 1e-5, "an edit of the last token"
    assert moved.relative[1, :, :5].max() < 1e-5
    assert moved.relative[0, :, -1].min() > 1e-2
    assert moved.relative[1, -1, 5:].min() > 1e-6, "sliding windows have passed it on by now"
    assert moved.relative[1, 0, 6:].max() < 1e-6, "before the first layer nothing has spread"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_edit_that_changes_nothing_moves_nothing(name: str) -> None:
    ids = given()
    same = [edit(text, 3, int(ids[text, 3])) for text in range(5)]
    assert mixing.run_edits(fake_lm(tiny_model(name)), ids, same, "without_bos").relative.max() < 1e-5


def test_batching_changes_nothing() -> None:
    lm, ids = fake_lm(tiny_model("gemma3_text")), given()
    many = [edit(text, position) for text in range(5) for position in (2, 8, 17)]
    together = mixing.run_edits(lm, ids, many, "with_bos")
    alone = mixing.run_edits(lm, ids, many, "with_bos", batch_tokens=1)
    shuffled = mixing.run_edits(lm, ids, many[::-1], "with_bos", batch_tokens=5 * LENGTH)
    for name in ("absolute", "relative"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(getattr(together, name), getattr(shuffled, name).flip(0), atol=1e-5, rtol=1e-4)


def test_first_token_mass_is_what_eager_attention_says() -> None:
    lm, ids = fake_lm(tiny_model("llama")), given()
    mass = first_token_mass(lm, ids, "without_bos")
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = lm.model.model(ids, output_attentions=True).attentions
    assert mass["value"] == pytest.approx(float(torch.stack(maps)[..., 0].mean()), abs=1e-5)


def test_out_of_memory_names_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    monkeypatch.setattr(mixing, "distances", full)
    with pytest.raises(FirstTokenError, match="lower batch_tokens"):
        mixing.run_edits(fake_lm(tiny_model("llama")), given(), [edit(0, 3)], "without_bos")


# -- statistics ---------------------------------------------------------------------------------------------


def test_spread_and_reach_against_loops() -> None:
    moved = torch.rand(4, 3, LENGTH, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 5, 11, 17])
    spread, reach = mixing.spread(moved, positions), mixing.reach(moved, positions, 0.4)
    for row in range(4):
        for layer in range(3):
            later = [float(moved[row, layer, j]) for j in range(LENGTH) if j > positions[row]]
            assert float(spread[row, layer]) == pytest.approx(sum(later) / len(later), abs=1e-6)
            assert float(reach[row, layer]) == pytest.approx(sum(d > 0.4 for d in later) / len(later), abs=1e-6)


def test_ratio_is_of_means_and_draws_texts_not_edits() -> None:
    below = torch.tensor([[0.1], [0.2], [0.4], [0.8], [1.6], [0.3]])
    texts_of = torch.tensor([0, 0, 1, 1, 2, 2])
    exact = statistics.ratio_estimates(3 * below, below, texts_of)[0]
    assert (exact.value, exact.low, exact.high, exact.n) == pytest.approx((3, 3, 3, 3))
    above = below.flip(0)
    ratio = statistics.ratio_estimates(above, below, texts_of)[0]
    assert ratio.value == pytest.approx(float(above.sum() / below.sum()))
    drawn = brute_force(above, below, texts_of)
    assert (ratio.low, ratio.high) == pytest.approx(drawn, rel=0.05)
    with pytest.raises(FirstTokenError, match="at least two texts"):
        statistics.ratio_estimates(above, below, torch.zeros(6, dtype=torch.long))


def brute_force(above: torch.Tensor, below: torch.Tensor, texts_of: torch.Tensor) -> tuple[float, float]:
    """The interval over all 27 ways to draw three texts from three."""
    rows = [(texts_of == text).nonzero()[:, 0] for text in range(3)]
    ratios = []
    for a in range(3):
        for b in range(3):
            for c in range(3):
                kept = torch.cat([rows[a], rows[b], rows[c]])
                ratios.append(float(above[kept].sum() / below[kept].sum()))
    # Each way 40 times, so that quantiles fall on values and not between them, as they do for many draws.
    low, high = torch.tensor(ratios * 40).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


# -- edits --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BUNDLED)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return models.load(request.param)


def test_the_shakespeare_edit_fits_both_tokenizers(lm: LanguageModel) -> None:
    before, after, position = edits.edit_text(lm, edits.shakespeare(), "greatest -> best")
    assert before.shape == after.shape
    assert (before != after).nonzero().tolist() == [[position]]
    assert lm.tokenizer.decode(before[position]).strip() == "greatest"
    assert lm.tokenizer.decode(after[position]).strip() == "best"


def test_chosen_edits_are_where_they_say(lm: LanguageModel) -> None:
    ids = tokens.encode(lm, texts.texts_from("passages", limit=60), 64, "never")
    synonyms = edits.token_synonyms(lm)
    vocabulary = sorted(set(ids.flatten().tolist()))
    chosen = edits.choose_edits(ids, 120, synonyms, vocabulary, seed=0)
    assert len({(e.text, e.place) for e in chosen}) == 120, "one edit for each place of each text"
    usable = 64 - edits.LAST_FREE - edits.FIRST
    for e in chosen:
        assert ids[e.text, e.position] != e.token
        assert edits.FIRST <= e.position < 64 - edits.LAST_FREE
        low, high = edits.PLACES[e.place]
        assert low * usable - 1 <= e.position - edits.FIRST <= high * usable
        if e.kind == "synonym":
            assert synonyms[int(ids[e.text, e.position])] == e.token
    assert sum(e.kind == "synonym" for e in chosen) >= 30
    assert chosen == edits.choose_edits(ids, 120, synonyms, vocabulary, seed=0)
    assert chosen != edits.choose_edits(ids, 120, synonyms, vocabulary, seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("smallest -> tiniest", "does not contain 'smallest'"),
        ("greatest -> most extraordinarily", "changes the number of tokens"),
        ("greatest", "is written 'old -> new'"),
        ("-> best", "is written 'old -> new'"),
    ],
)
def test_edits_that_cannot_be_made(lm: LanguageModel, change: str, message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        edits.edit_text(lm, edits.shakespeare(), change)


def test_too_few_or_too_short_texts() -> None:
    with pytest.raises(FirstTokenError, match="lower `edits` or give more texts"):
        edits.choose_edits(given(2), 40, {}, range(3, 97))
    with pytest.raises(FirstTokenError, match="at least 14 tokens, not 9"):
        edits.choose_edits(given(2)[:, :9], 2, {}, range(3, 97))


# -- the chapter's record -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))


@pytest.mark.usefixtures("store")
def test_record_of_a_real_model(lm: LanguageModel) -> None:
    few: dict[str, Any] = dict(edits=9, text_tokens=32, shown=24)
    parameters = perturbation.Parameters(**few)
    record = perturbation.MEASUREMENT.record(lm, parameters)
    values = record.values
    depth = lm.model.config.num_hidden_layers
    assert values["edits"] == 9
    assert len(values["by_layer"]["ratio"]) == len(values["by_layer"]["with_bos"]["spread"]) == depth
    picture = values["picture"]
    for arm in ARMS:
        relative = torch.tensor(picture[arm]["relative"])
        assert relative.shape == (depth + 1, 24)
        assert relative[:, : picture["position"]].max() < 1e-3
        assert relative[:, picture["position"]].min() > 1e-2
    ratios = [values[name]["value"] for name in ("spread_ratio", "own_ratio", "spread_over_own_ratio")]
    assert ratios[0] / ratios[1] == pytest.approx(ratios[2])
    assert sink_survives(values["first_token_mass"]) == (lm.slug == "smollm2-135m")
    assert perturbation.MEASUREMENT.record(lm, parameters) == record
    one = perturbation.MEASUREMENT.record(lm, perturbation.Parameters(**few, bos="never"))
    assert one.verdict is not None
    assert one.verdict.status == "inconclusive"
    assert one.values["by_layer"]["without_bos"] == values["by_layer"]["without_bos"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bos": "auto"}, "bos must be both, always or never"),
        ({"threshold": 1.5}, "threshold is a share"),
        ({"text": "no-such-passage"}, "There is no passage"),
        ({"edit": "greatest"}, "is written 'old -> new'"),
        ({"edits": 1}, "edits must be at least 2, not 1"),
        ({"shown": 0}, "shown must be at least 2, not 0"),
        ({"text_tokens": 1}, "text_tokens must be at least 2, not 1"),
        ({"text_tokens": -4}, "text_tokens must be from 0 to 10000000, not -4"),
    ],
)
def test_bad_parameters(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        perturbation.MEASUREMENT.record(fake_lm(tiny_model("llama")), perturbation.Parameters(**asked))


def test_an_edit_outside_the_picture() -> None:
    parameters = perturbation.Parameters(edit=f"{LETTERS[60]} -> {LETTERS[70]}", shown=20)
    with pytest.raises(FirstTokenError, match="raise `shown`"):
        perturbation.pair_of_picture(fake_lm(tiny_model("llama")), "".join(LETTERS[3:90]), parameters)


FEW: dict[str, Any] = dict(edits=6, text_tokens=32)
PASSAGES = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(40)) for i in range(4)]


def test_a_tokenizer_that_does_not_allow_the_picture_loses_nothing_else() -> None:
    """Of letters it knows none of Shakespeare's, so that "greatest" has more of them than "best"."""
    lm = fake_lm(tiny_model("llama"))
    values = perturbation.run(lm, perturbation.Parameters(**FEW), [edits.shakespeare(), *PASSAGES])
    json.dumps(values, allow_nan=False)
    assert "changes the number of tokens" in values["picture"]["refused"]
    assert values["edits"] == 6
    record = Record("perturbation", "some-model", {}, values, {})
    assert verdict.judge(record).sentence
    for drawn in (figures.heat_map, figures.absolute_map):
        assert "changes the number of tokens" in drawn(record).text
    figures.spread_by_layer([record])
    figures.groups([record])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"edit": "greatest -> finest of all"}, "changes the number of tokens"),
        ({"edit": "smallest -> tiniest"}, "does not contain 'smallest'"),
        ({"text": "some text without the word"}, "does not contain 'greatest'"),
        ({"shown": 30}, "changes the number of tokens"),
        ({"edits": 2}, "2 edits are all of one text"),
    ],
)
def test_what_the_tokens_decide_is_refused_before_anything_runs(
    asked: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(perturbation, "run_edits", never)
    shown = asked.get("text") or edits.shakespeare()
    with pytest.raises(FirstTokenError, match=message):
        perturbation.run(fake_lm(tiny_model("llama")), perturbation.Parameters(**FEW | asked), [shown, *PASSAGES])


def record_of(ratio: tuple[float, float], without: float) -> Record:
    def estimate(low: float, high: float) -> dict[str, Any]:
        return asdict(Estimate((low + high) / 2, low, high, 40))

    values = {
        "edits": 120,
        "spread_ratio": estimate(3.0, 4.0),
        "own_ratio": estimate(2.0, 3.0),
        "spread_over_own_ratio": estimate(*ratio),
        "first_token_mass": {"with_bos": estimate(0.5, 0.5), "without_bos": estimate(without, without)},
    }
    return Record("perturbation", "some-model", {}, values, {})


@pytest.mark.parametrize(
    ("ratio", "without", "status"),
    [
        ((1.9, 2.3), 0.02, "reproduced"),
        ((0.9, 1.1), 0.02, "not reproduced"),
        ((0.5, 0.9), 0.02, "not reproduced"),
        ((1.9, 2.3), 0.45, "inconclusive"),
    ],
)
def test_verdicts_follow_from_the_numbers(ratio: tuple[float, float], without: float, status: str) -> None:
    judged = verdict.judge(record_of(ratio, without))
    assert judged.status == status
    assert f"{sum(ratio) / 2:.2f} [" in judged.sentence
