"""Recipes of training: what a recipe draws, what a trained head shows, what the counts say."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from firsttoken import records
from firsttoken.claims.recipes import figures, measure, on_text, verdict
from firsttoken.claims.recipes.outcomes import moved, outcomes
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import backcopy, run_records
from firsttoken.pretraining.backcopy import Backcopy
from firsttoken.pretraining.recipe import Recipe, replace_tokens
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.smallest import Smallest
from firsttoken.pretraining.smallest_training import Setting, look, train
from firsttoken.pretraining.trained import Fixed
from firsttoken.records import Record

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = Setting(length=16, steps=6, symbols=9, width=8, tokens_per_step=256, every=2)


def generators(seeds: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(seeds)]


def chains(task: Backcopy, seeds: int = 2) -> torch.Tensor:
    return torch.stack(
        [Backcopy(symbols=task.symbols, triggers=task.triggers, seed=s).cumulative() for s in range(seeds)]
    )


# -- what a recipe changes ----------------------------------------------------------------------------------


def test_a_growing_context_has_its_lengths_at_its_steps() -> None:
    recipe = Recipe(lengths=((0, 16), (3, 32), (5, 64)))
    assert [recipe.length(step, 64) for step in range(7)] == [16, 16, 16, 32, 32, 64, 64]
    assert Recipe().length(3, 64) == 64


def test_texts_without_bos_are_the_same_texts_one_token_on() -> None:
    task = Backcopy(symbols=9, seed=0)
    plain = Recipe().draw(chains(task), generators(), 400, 12, task)
    mixed = Recipe(without_bos=0.25).draw(chains(task), generators(), 400, 12, task)
    bare = mixed[..., 0] != backcopy.BOS
    assert float(bare.double().mean()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(mixed[~bare], plain[~bare])
    assert torch.equal(mixed[bare][:, :-1], plain[bare][:, 1:])


def test_replaced_tokens_are_as_many_as_asked_and_never_bos() -> None:
    task = Backcopy(symbols=9, seed=0)
    ids = Recipe().draw(chains(task), generators(), 500, 20, task)
    noisy = replace_tokens(ids, 0.2, generators(), task)
    assert torch.equal(noisy[..., 0], ids[..., 0])
    assert noisy[..., 1:].min() >= 1
    assert noisy.max() == task.symbols
    # A ninth of the tokens that are drawn are what stood there.
    assert float((noisy != ids)[..., 1:].double().mean()) == pytest.approx(0.2 * 8 / 9, abs=0.01)


def test_the_loss_of_a_step_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of a recipe with a penalty and replaced inputs against one written out for each seed alone."""
    recipe = Recipe(first_penalty=0.7, replaced=0.3)
    setting = Setting(length=16, steps=1, symbols=9, width=8, tokens_per_step=64, every=1)
    trained = train(setting, [0, 1], dtype=torch.float64, recipe=recipe)
    for run in trained:
        task, model = setting.task(run.seed), setting.model(run.seed).double()
        random = torch.Generator().manual_seed(run.seed + (1 << 20))
        own = task.cumulative()[None]
        Recipe().draw(own, [random], 8192 // 16, 16, task)  # the held-out texts come first
        ids = Recipe().draw(own, [random], 4, 16, task)
        noisy = replace_tokens(ids, 0.3, [random], task)[0]
        logits, attention = model(noisy)[:2]
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[0, :, 1:].flatten())
        to_first = torch.stack([attention[text, 0, query, 0] for text in range(4) for query in range(1, 16)]).mean()
        optimiser = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate)
        (loss + 0.7 * to_first).backward()
        optimiser.step()
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(run.model.state_dict()[name], weight, atol=1e-9, rtol=1e-7)


def test_plain_training_is_what_it_was() -> None:
    """A recipe that changes nothing draws no random number of its own."""
    plain, none = train(SHORT, [3]), train(SHORT, [3], recipe=Recipe(lengths=((0, 16),)))
    assert plain[0].history == none[0].history


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Recipe(replaced=1.0), "shares"),
        (lambda: Recipe(without_bos=-0.1), "shares"),
        (lambda: Recipe(lengths=((2, 16),)), "begin at step 0"),
        (lambda: Recipe(lengths=((0, 16), (0, 32))), "one after the other"),
        (lambda: train(SHORT, [0], recipe=Recipe(lengths=((0, 32),))), "no longer than"),
        (lambda: train(SHORT, [0], recipe=Recipe(lengths=((0, 12),))), "divides"),
        (lambda: Recipe(first_penalty=float("nan")), "nats"),
        (lambda: Recipe(lengths=((0, 0),)), "one token or more"),
        (lambda: measure.Parameters(length=8), "length"),
        (lambda: measure.Parameters(steps=3), "steps"),
        (lambda: measure.Parameters(penalty=-0.1), "penalty"),
        (lambda: measure.Parameters(penalty=float("inf")), "penalty"),
        (lambda: measure.Parameters(enough=float("nan")), "enough"),
    ],
)
def test_bad_input_is_one_sentence(make: Any, says: str) -> None:
    with pytest.raises(FirstTokenError, match=says):
        make()


# -- what a head shows --------------------------------------------------------------------------------------


def test_movement_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    model = Smallest(10, 12, 8)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    ids = torch.randint(1, 10, (3, 12))
    noisy = ids.clone()
    noisy[0, 2], noisy[0, 5], noisy[1, 4] = ids[0, 2] % 9 + 1, ids[0, 5] % 9 + 1, ids[1, 4] % 9 + 1
    each = []
    for text, replaced in ((0, [2, 5]), (1, [4])):
        p, q = (model(rows[text : text + 1])[0][0].detach().double().softmax(-1) for rows in (ids, noisy))
        for query in range(min(replaced), 12):
            if query not in replaced and query - 1 not in replaced:
                each.append(float(sum(a * (a / b).log() for a, b in zip(p[query], q[query], strict=True))))
    assert moved(model, ids, noisy) == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_the_loss_at_triggers_is_that_of_a_loop() -> None:
    """Over the triggers of each text, the last token left out, which predicts nothing."""
    task = Backcopy(symbols=9, triggers=2, seed=0)
    model = Smallest(10, 16, 8)
    torch.nn.init.zeros_(model.place.weight)
    torch.nn.init.zeros_(model.out.weight)
    uniform = torch.rand(1, 64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = backcopy.texts(task.cumulative()[None], uniform, task)[0]
    losses = []
    for text in ids.tolist():
        logits = model(torch.tensor([text]))[0][0].log_softmax(-1)
        losses += [-float(logits[at, text[at + 1]].detach()) for at in range(1, 15) if 1 <= text[at] <= 2]
    with torch.no_grad():
        read = model(ids)
    assert look(read, ids, task)["loss_at"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_step_at_which_it_had_learnt_is_the_first_below_the_threshold() -> None:
    (run,) = train(SHORT, [0])
    shown = outcomes(run, SHORT, enough=1e9)
    assert shown["learnt"] == 0
    assert outcomes(run, SHORT, enough=0.0)["learnt"] is None
    assert shown["share"] == pytest.approx(run.history[-1]["first_away"], abs=1e-5)
    assert shown["spread_over_own"] > 0
    assert shown["largest_activation"] > 1


# -- what the counts say ------------------------------------------------------------------------------------


def seed_of(
    number: int,
    learnt: int | None = 300,
    share: float = 0.6,
    moved: float = 0.01,
    without: float = 0.05,
    at: float = 0.01,
) -> Any:
    return {
        "seed": number, "learnt": learnt, "loss_at": at, "loss_away": 3.7, "share": share, "value_norm": 0.2,
        "moved": moved, "share_without": without, "missing": 0.1,
    }  # fmt: skip


KEPT: dict[str, dict[str, Any]] = {
    "growing_context": {"at": 0.029},
    "sink_penalised": {"share": 0.01},
    "sink_rewarded": {"moved": 0.001},
    "tokens_replaced": {"moved": 0.001},
    "bos_in_half": {"without": 0.5},
}


def record(broken: dict[str, dict[str, Any]], plain_fails: int = 0, broken_seeds: int = 10) -> Record:
    by_recipe = {"plain": [seed_of(n, None if n < plain_fails else 300) for n in range(10)]}
    for name, kept in KEPT.items():
        by_recipe[name] = [
            seed_of(n, **{**kept, **(broken.get(name, {}) if n < broken_seeds else {})}) for n in range(10)
        ]
    return Record("recipes", "one-head", {}, measure.summary(by_recipe), {})


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"broken": {}}, "reproduced", "5 of 5 promises"),
        ({"broken": {"growing_context": {"at": 0.031}}}, "partly", "4 of 5 promises"),
        ({"broken": {"growing_context": {"learnt": None}}}, "partly", "in 0 of 10 seeds"),
        ({"broken": {"sink_rewarded": {"moved": 0.0095}}, "broken_seeds": 1}, "partly", "less in 9 of 10 seeds"),
        ({"broken": {"tokens_replaced": {"learnt": None}}}, "partly", "4 of 5"),  # moves less, but learnt nothing
        ({"broken": {"bos_in_half": {"without": 0.29}}}, "partly", "4 of 5"),
        (
            {
                "broken": {
                    "growing_context": {"at": 0.1}, "sink_penalised": {"share": 0.5},
                    "sink_rewarded": {"moved": 1}, "tokens_replaced": {"moved": 1}, "bos_in_half": {"share": 0.1},
                },
                "broken_seeds": 1,
            },
            "not reproduced",
            "0 of 5",
        ),
        ({"broken": {}, "plain_fails": 2}, "reproduced", "in 8 of 8 seeds"),
        ({"broken": {}, "plain_fails": 3}, "inconclusive", "too few seeds"),
    ],
)  # fmt: skip
def test_verdicts_follow_from_the_seeds(given: dict[str, Any], status: str, words: str) -> None:
    made = record(**given)
    judged = verdict.judge(made)
    assert judged.status == status
    assert words in judged.sentence
    for shown in (
        figures.sinks_and_noise(made),
        figures.missing(made),
        figures.missing_table(made),
        figures.promises(made),
        figures.recipe_table(made),
    ):
        assert "recipe" in shown.text


def test_the_committed_interval_is_that_of_seeds() -> None:
    stored = records.find("recipes", "one-head")
    assert stored is not None
    assert stored.values["kept"] == measure.summary(stored.values["by_recipe"])["kept"]
    assert stored.values["kept"]["n"] == len(verdict.pairs(stored.values, verdict.PLAIN))


def test_a_short_measurement_has_every_recipe_and_keeps_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    made = measure.MEASUREMENT.record(measure.Parameters(seeds=2, length=16, steps=4), train=True)
    assert made is not None
    assert set(made.values["by_recipe"]) == {"plain", *verdict.PROMISES}
    assert all(len(seeds) == 2 for seeds in made.values["by_recipe"].values())
    assert made.values["kept"] is None  # nobody learns anything in four steps
    assert all(verdict.fate(made.values, name) == "open" for name in verdict.PROMISES)
    assert made.verdict is not None
    assert made.verdict.status == "inconclusive"
    assert len(list((tmp_path / "recipes").glob("one-head--*.json"))) == 6
    assert records.slug("one-head") == made.model


def over_texts(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.004, "high": value + 0.004, "n": 64}


PLAIN_END = {"excess": 0.1, "loss": 2.0, "spread_over_own": 0.05}


def text_record(**ends: list[dict[str, float] | None]) -> Record:
    """Two seeds of each recipe on text; what is not given keeps every promise."""

    def end(changed: dict[str, float] | None) -> dict[str, Any] | None:
        if changed is None:
            return None
        numbers = {"sink_rate": 0.1, "missing": 0.05, "value_norm": 0.7, "row_sum": 1.0, **PLAIN_END, **changed}
        return {**{name: over_texts(number) for name, number in numbers.items()}, "largest_activation": 40.0}

    kept: dict[str, dict[str, float]] = {
        "plain": {}, "sink_penalised": {"excess": 0.02}, "sink_rewarded": {"spread_over_own": 0.04},
        "tokens_replaced": {"spread_over_own": 0.04},
    }  # fmt: skip
    entries = {name: [end(one) for one in ends.get(name, [good, good])] for name, good in kept.items()}
    return Record("recipes", "lab-budget", {}, {"on_text": entries, "heads": 16}, {})


@pytest.mark.parametrize(
    ("ends", "status", "words"),
    [
        ({}, "reproduced", "3 of 3 promises are kept"),
        ({"sink_penalised": [{"excess": 0.02}, {"excess": 0.031}]}, "partly", "in 1 of 2 seeds"),
        ({"sink_penalised": [{"excess": 0.02, "loss": 2.051}, {"excess": 0.02}]}, "partly", "2 of 3 promises"),
        ({"tokens_replaced": [{"spread_over_own": 0.046}, {"spread_over_own": 0.04}]}, "partly", "2 of 3"),
        (
            {name: [{"excess": 0.1}, {"excess": 0.1}] for name in verdict.TEXT_PROMISES},
            "not reproduced",
            "0 of 3 promises",
        ),
        ({"sink_rewarded": [{"spread_over_own": 0.04}, None]}, "inconclusive", "some are not trained"),
        ({"sink_rewarded": [{"spread_over_own": 0.04}, None]}, "inconclusive", "at no higher loss, in 1 of 1 seeds"),
        ({"tokens_replaced": [None, None]}, "inconclusive", "; tokens replaced is not trained."),
        ({"plain": [{}, {"excess": 0.029}]}, "inconclusive", "no sink in every seed"),
    ],
)
def test_recipes_on_text_are_judged_seed_by_seed(ends: dict[str, Any], status: str, words: str) -> None:
    made = text_record(**ends)
    judged = verdict.judge(made)
    assert judged.status == status
    assert words in judged.sentence
    shown = figures.text_table(made).text
    assert ("not run" in shown) == any(None in of for of in ends.values())
    assert ("not kept" in shown) == (status in ("partly", "not reproduced"))


def test_tables_have_intervals_and_the_range_of_seeds() -> None:
    def rows_of(table: str) -> list[dict[str, str]]:
        columns, *rows = (line.split(" | ") for line in table.splitlines()[1:])
        return [dict(zip(columns, row, strict=True)) for row in rows]

    made = text_record(tokens_replaced=[{"loss": 2.051}, None])
    rows = rows_of(figures.text_table(made).text)
    assert [(row["recipe"], row["seed"]) for row in rows] == [
        (figures.NAMES[name], seed) for name in ("plain", *verdict.TEXT_PROMISES) for seed in "01"
    ]
    shown = [rows[6][name] for name in ("promise", "texts", "loss", "spread / own")]
    assert shown == ["not kept", "64", "2.051 [2.047, 2.055]", "0.050 [0.046, 0.054]"]
    assert (rows[7]["promise"], rows[7]["loss"]) == ("not run", "–")

    older = record({})
    newer = record({})
    for number, seed in enumerate(newer.values["by_recipe"]["plain"]):
        seed |= {"spread_over_own": 0.01 + 0.001 * number, "largest_activation": 8.0}
    plain = [rows_of(figures.unjudged_table(made).text)[0] for made in (older, newer)]
    names = ("spread / own", "largest activation / median")
    assert [plain[0][name] for name in names] == ["–", "–"]
    assert [plain[1][name] for name in names] == ["0.0145 [0.0100, 0.0190]", "8.0"]

    one_head, lab = records.find("recipes", "one-head"), records.find("recipes", "lab-budget")
    assert one_head is not None
    assert lab is not None
    assert all(row["texts"] == "64" and "[" in row["loss"] for row in rows_of(figures.text_table(lab).text))
    unjudged = rows_of(figures.unjudged_table(one_head).text)
    assert len(unjudged) == 1 + len(verdict.PROMISES)
    assert "–" not in {cell for row in unjudged for cell in row.values()}
    noisy = next(row for row in rows_of(figures.recipe_table(one_head).text) if row["recipe"] == "tokens replaced")
    losses = [seed["loss_at"] for seed in one_head.values["by_recipe"]["tokens_replaced"]]
    assert noisy["loss at triggers"] == f"{median(losses):.3f} [{min(losses):.3f}, {max(losses):.3f}]"
    assert noisy["learnt"] == "10 of 10"
    half = next(
        row for row in rows_of(figures.missing_table(one_head).text) if row["recipe"] == "BOS in half the texts"
    )
    without = [seed["share_without"] for seed in one_head.values["by_recipe"]["bos_in_half"]]
    assert half["share without BOS"] == f"{median(without):.2f} [{min(without):.2f}, {max(without):.2f}]"


def test_runs_on_text_differ_from_plain_training_in_one_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = on_text.trainings()
    assert len({run.slug for run in runs}) == 8
    for seed in on_text.SEEDS:
        plain = on_text.training("plain", seed).told()
        for recipe, change in on_text.CHANGES.items():
            assert on_text.training(recipe, seed).told() == {**plain, **change}

    monkeypatch.setattr(run_records, "find", lambda training: None)
    assert on_text.MEASUREMENT.record(Fixed()) is None

    def only_plain(training: Training) -> Record | None:
        return Record("pretraining", training.slug, {}, {}, {}) if training in runs[::4] else None

    monkeypatch.setattr(run_records, "find", only_plain)
    assert on_text.MEASUREMENT.record(Fixed()) is None, "plain training alone is no recipe"


def test_values_on_text_are_those_of_the_runs() -> None:
    def run(training: Training) -> Record:
        def arm(mass: float, loss: float) -> dict[str, Any]:
            named = {"mass": mass, "loss": loss, "sink_rate_0.3": 0.25, "value_norm_ratio": 0.8}
            return {name: over_texts(value) for name, value in named.items()}

        mass = 0.06 if training.first_penalty > 0 else 0.2
        final = {
            "64": {"BOS+text": arm(mass, 2.5), "missing_bos": {"loss": over_texts(0.04)}},
            "256": {"BOS+text": arm(0.05, 2.25), "missing_bos": {"loss": over_texts(0.01)}},
        }
        spread = 0.02 if training.replaced else 0.05
        beside = {"row_sum": over_texts(1.0), "spread_over_own": over_texts(spread), "largest_activation": 30.0}
        return Record("pretraining", training.slug, {}, {"final": final, "design": beside}, {})

    trained = {one: run(one) for one in on_text.trainings() if (one.replaced, one.seed) != (0.05, 1)}
    values = on_text.run(Fixed(), run_records.Group(on_text.trainings(), trained))
    even = sum(1 / n for n in range(1, 65)) / 64
    assert values["on_text"]["sink_penalised"][1]["excess"] == pytest.approx(over_texts(0.06 - even))
    assert values["on_text"]["tokens_replaced"][1] is None
    assert values["heads"] == 16
    assert values["kept"]["value"] == pytest.approx(3 / 5)  # penalised twice, replaced once, rewarded never
    assert values["kept"]["n"] == 2  # seeds
