"""A planted if-else head must be found and named; where there is none, none may be found."""

from __future__ import annotations

import json
import statistics as of_python
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fake import Letters, fake_lm
from firsttoken import records
from firsttoken.claims.no_op import figures, measure, rule_figures, rules
from firsttoken.claims.no_op.apostrophe import Wanted, trigger_head, triggers
from firsttoken.claims.no_op.measure import MEASUREMENT, Parameters
from firsttoken.claims.no_op.search import (
    Discovery,
    Rule,
    discover,
    information,
    largest_by_chance,
    modes,
    targets,
    valley,
)
from firsttoken.claims.no_op.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.measures import first_token_attention
from firsttoken.measures.attention_maps import attention_maps
from firsttoken.measures.head_norms import HeadTraces
from firsttoken.records import Record, Status
from firsttoken.texts.token_classes import CLASSES, TokenClasses, classes_of, containing
from tiny import tiny_model

BOS, APOSTROPHE = 1, 2
OTHERS = [",", ".", " 4", "\n", "-", " the", "er", *(" " + "bcdfghjklm"[i % 10] * (1 + i // 10) for i in range(30))]
STRINGS = ["<pad>", "<bos>", "'", *OTHERS]
TEXTS, LENGTH = 40, 48


def planted_model(planted: bool = True) -> LlamaForCausalLM:
    """One layer, two heads. Head 1 attends to an apostrophe where the query is one, and to BOS otherwise; head 0
    attends evenly. Embeddings are one of four directions: BOS, apostrophe, other, and one that all share."""
    config = LlamaConfig(
        vocab_size=len(STRINGS), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=4, max_position_embeddings=128, bos_token_id=BOS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12},
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding.zero_()
        embedding[:, 2], embedding[:, 3] = 1.0, 1.0
        embedding[BOS, :3] = torch.tensor([1.0, 0.0, 0.0])
        embedding[APOSTROPHE, :3] = torch.tensor([0.0, 1.0, 0.0])
        for weight in (attention.q_proj.weight, attention.k_proj.weight):
            weight.zero_()
        if planted:
            # Dimensions 1 and 3 of a head turn by a millionth of a radian a position, so content decides.
            key, query = attention.k_proj.weight[4:], attention.q_proj.weight[4:]
            key[1, 0], key[3, 1] = 1.0, 1.0  # BOS and apostrophe as keys
            query[1, 3], query[1, 1], query[3, 1] = 4.0, -8.0, 4.0
            query.mul_(2.0)
    return model


def planted_texts(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, len(STRINGS), (TEXTS, LENGTH), generator=generator)
    ids[torch.rand(TEXTS, LENGTH, generator=generator) < 0.1] = APOSTROPHE
    ids[:, 0] = BOS
    return ids


def strings(ids: Tensor) -> list[list[str]]:
    return [[STRINGS[i] for i in row] for row in ids.tolist()]


def test_the_planted_head_is_found_and_named() -> None:
    ids = planted_texts()
    attention = first_token_attention.by_query(fake_lm(planted_model()), ids)
    two, rules = discover(attention, classes_of(strings(ids)), Discovery(permutations=199))
    named = [rule for rule in rules if rule.named]
    assert [rule.head for rule in named] == [1]
    rule = named[0]
    assert rule.condition == "token: apostrophe"
    assert rule.off_when_true
    assert rule.off_if_condition == 1
    assert rule.off_otherwise == 0
    assert rule.share_explained == pytest.approx(1)
    assert rule.p == pytest.approx(1 / 200)
    assert two.bimodal.tolist() == [False, True]


def test_without_a_planted_head_none_is_found() -> None:
    ids = planted_texts()
    attention = first_token_attention.by_query(fake_lm(planted_model(planted=False)), ids)
    two, rules = discover(attention, classes_of(strings(ids)), Discovery(permutations=49))
    assert not two.bimodal.any()
    assert rules == []


@pytest.mark.parametrize("seed", range(12))
def test_random_models_have_no_rules(seed: int) -> None:
    """Untrained attention has no two modes, so the whole search, with its criteria, finds nothing in any of them."""
    ids = planted_texts(seed)
    attention = first_token_attention.by_query(fake_lm(tiny_model("llama", seed=seed)), ids)
    _, rules = discover(attention, classes_of(strings(ids)), Discovery(permutations=99, seed=seed))
    assert not [rule for rule in rules if rule.named]


def modes_without_a_rule(generator: torch.Generator) -> Tensor:
    """Two clear modes that have nothing to do with the tokens, but change with the position and come in runs."""
    steps = torch.rand(TEXTS, 1, 4, LENGTH // 4, generator=generator).repeat_interleave(4, dim=-1)
    trend = torch.linspace(0.2, 0.8, LENGTH)
    off = steps < trend
    noise = 0.05 * torch.rand(off.shape, generator=generator)
    return torch.where(off, 0.1, 0.85) + noise


def test_false_discoveries_stay_at_the_level_asked_for() -> None:
    """Bimodal heads without a rule, 60 searches of 4 heads x all classes: a corrected p-value below 0.05 may come
    up in one search of twenty. Counting those without the correction would fail this by far."""
    generator = torch.Generator().manual_seed(5)
    lowest = []
    for seed in range(60):
        ids = planted_texts(100 + seed)
        attention = modes_without_a_rule(generator)
        _, rules = discover(attention, classes_of(strings(ids)), Discovery(permutations=99, seed=seed))
        assert len(rules) == 4
        assert not any(rule.named for rule in rules)
        lowest.append(min(rule.p for rule in rules))
    significant = sum(p <= 0.05 for p in lowest)
    assert significant <= 8, "with 60 searches at 5 %, more than 8 has a probability below 1 %"
    assert sum(p <= 0.5 for p in lowest) >= 15, "p-values that are never small would hide every rule"


def test_information_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    off = torch.rand(3, 500, generator=generator) < 0.3
    holds = torch.rand(5, 500, generator=generator) < 0.6
    holds[0] = off[0]
    bits = information(off, holds)
    for i in range(3):
        for j in range(5):
            expected = 0.0
            for a in (False, True):
                for b in (False, True):
                    joint = ((off[i] == a) & (holds[j] == b)).double().mean().item()
                    product = (off[i] == a).double().mean().item() * (holds[j] == b).double().mean().item()
                    if joint > 0:
                        expected += joint * torch.log2(torch.tensor(joint / product, dtype=torch.float64)).item()
            assert bits[i, j].item() == pytest.approx(expected, abs=1e-9)


def test_exchanging_texts_keeps_positions() -> None:
    """A condition and a mode that both depend on nothing but the position are no discovery."""
    off = (torch.arange(40) % 2 == 0).expand(1, 20, 40)
    chance = largest_by_chance(off, off.clone(), 20, seed=0)
    assert torch.allclose(chance, torch.ones_like(chance)), "one bit by chance, as much as observed"


def test_modes_by_hand() -> None:
    low, high = torch.full((1, 10, 30), 0.1), torch.full((1, 10, 10), 0.9)
    two = modes(torch.cat([low, high], dim=2), Discovery())
    assert two.bimodal[0]
    assert two.share_off[0].item() == pytest.approx(0.75)
    assert (two.mean_off[0].item(), two.mean_on[0].item()) == pytest.approx((0.1, 0.9))
    assert two.explained[0].item() == pytest.approx(1)
    even = torch.rand(1, 100, 100, generator=torch.Generator().manual_seed(0))
    spread = modes(even, Discovery())
    assert spread.explained[0].item() == pytest.approx(0.75, abs=0.02)
    assert spread.switches[0], "an even spread uses both ends"
    assert not spread.bimodal[0], "but has no valley"
    bell = 0.5 + 0.1 * torch.randn(1, 100, 100, generator=torch.Generator().manual_seed(0))
    assert modes(bell.clamp(0, 1), Discovery()).explained[0].item() == pytest.approx(2 / torch.pi, abs=0.02)


def test_valley_by_hand() -> None:
    two = torch.tensor([8.0, 8, 8, 2, 2, 2, 4, 4, 4, 4])
    one = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    depths = valley(torch.stack([two, one, torch.ones(10)]), torch.tensor([5, 5, 5]))
    assert depths.tolist() == pytest.approx([0.5, 1, 1])


def test_classes_of_a_sentence() -> None:
    text = ["<bos>", "The", " cat", "'", "s", " cat", ",", " the", " cat", "\n", "42", " The", " cat", "'"]
    classes = classes_of([text])

    def where(name: str) -> list[int]:
        return classes.holds[classes.names.index(name), 0].nonzero()[:, 0].tolist()

    assert where("token: apostrophe") == [3, 13]
    assert where("previous token: apostrophe") == [4]
    assert where("token: article") == [1, 7, 11]
    assert where("token: newline") == [9]
    assert where("previous token: newline") == [10]
    assert where("token: digit") == [10]
    assert where("token: start of a word") == [2, 5, 7, 8, 11, 12]
    assert where("token: letters inside a word") == [1, 4]
    assert where("token: separator (punctuation or newline)") == [3, 6, 9, 13]
    assert where("repeated token") == [5, 8, 12, 13]
    assert where("repeated pair") == [13]
    assert where("repeated word") == [5, 8, 12]
    assert "token: end of a sentence" in classes.names
    assert not where("token: end of a sentence")


def test_rare_classes_are_left_out() -> None:
    holds = torch.zeros(3, 2, 10, dtype=torch.bool)
    holds[1, 0, :3], holds[2] = True, True
    kept = TokenClasses(("never", "sometimes", "always"), holds).kept(3)
    assert kept.names == ("sometimes",)


def test_every_class_is_decided_for_odd_tokens() -> None:
    for token in ("", " ", "\n\n", "�", "é", "—", "<0x0A>"):
        assert {type(rule(token)) for rule in CLASSES.values()} == {bool}


def test_targets_add_up() -> None:
    maps = torch.rand(2, 12, 12).tril()
    maps = maps / maps.sum(-1, keepdim=True)
    off = torch.rand(2, 12) < 0.5
    shares = targets(maps, off)
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert targets(maps, torch.zeros(2, 12, dtype=torch.bool)) is None


def test_the_map_of_the_planted_head() -> None:
    ids = planted_texts()[:3]
    maps = attention_maps(fake_lm(planted_model()), ids, [(0, 1)], batch=2)[:, 0]
    at = ids == APOSTROPHE
    others = ~at
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, LENGTH), atol=1e-5, rtol=0)
    assert maps[..., 0][others].min() > 0.9
    assert (maps * at[:, None]).sum(-1)[at].min() > 0.9


def test_the_trigger_head_is_read_off_right() -> None:
    """Head 1 attends to apostrophes at apostrophes, not right after them: the paper's head it is not."""
    ids, lm = planted_texts(), fake_lm(planted_model(), Letters(STRINGS))
    attention = first_token_attention.by_query(lm, ids)
    where = triggers(strings(ids), "'")
    values = trigger_head(lm, ids, strings(ids), where, attention, Wanted(layer=0, head=1), layers=[0])
    maps = attention_maps(lm, ids, [(0, 1)])[:, 0]
    rows = (ids == APOSTROPHE).any(1).nonzero()[:, 0][:16]
    at = [(int(t), int(k)) for t in rows for k in (ids[t] == APOSTROPHE).nonzero()[:, 0] if k < LENGTH - 1]
    expected = sum(float(maps[t, k + 1, k]) for t, k in at) / len(at)
    assert values["attention_to_trigger"]["value"] == pytest.approx(expected, abs=1e-5)
    assert values["triggers"] == len(at)
    assert values["chosen"] == "given"
    assert not values["is_one"]


def test_an_example_shows_the_rule_where_it_holds_best() -> None:
    """Text 0 contradicts the rule everywhere, text 1 follows it but in one place, text 2 never meets the condition."""
    holds = torch.zeros(1, 3, 120, dtype=torch.bool)
    holds[0, 0, 10::5] = holds[0, 1, 60:80:5] = True
    attention = torch.full((3, 1, 2, 120), 0.9)
    attention[1, 0, 1][holds[0, 1]] = 0.1
    attention[1, 0, 1, 70] = 0.9
    rule = Rule(1, "five", True, 0.9, 0.0, 0.5, 0.5, 0.001, True)
    words = [[f"{text}-{at}" for at in range(120)] for text in range(3)]
    shown = rules.example(rule, 0.5, attention, words, TokenClasses(("five",), holds), [7])
    assert (shown["layer"], shown["head"]) == (7, 1)
    assert len(shown["tokens"]) == rules.SHOWN
    assert all(token.startswith("1-") for token in shown["tokens"])
    met = [weight for weight, framed in zip(shown["attention"], shown["holds"], strict=True) if framed]
    assert len(met) >= rules.FEWEST_SHOWN
    assert shown["follows"] >= 1 - 1 / rules.SHOWN
    wrong = int(holds[0, 0, 8:].sum()) + 1
    assert shown["follows_everywhere"] == pytest.approx(1 - wrong / (3 * 112))


def test_clear_messages() -> None:
    lm = fake_lm(planted_model(), Letters(STRINGS))
    with pytest.raises(FirstTokenError, match="has no layer 3; its layers are 0 to 0"):
        MEASUREMENT.record(lm, Parameters(layer=3, head=0))
    with pytest.raises(FirstTokenError, match="has no head 9; its heads are 0 to 1"):
        MEASUREMENT.record(lm, Parameters(layer=0, head=9))
    with pytest.raises(FirstTokenError, match="give both or neither"):
        Parameters(layer=0)
    with pytest.raises(FirstTokenError, match="norm_passages must be from 2 to passages=4"):
        Parameters(passages=4, norm_passages=5)
    with pytest.raises(FirstTokenError, match="fewer than passages=9999"):
        MEASUREMENT.record(lm, Parameters(passages=9999))
    with pytest.raises(FirstTokenError, match="passages must be at least 8, not 7"):
        Parameters(passages=7, norm_passages=2)
    with pytest.raises(FirstTokenError, match="length must be at least 16, not 15"):
        Parameters(length=15)
    with pytest.raises(FirstTokenError, match="at least one character"):
        Parameters(trigger="")
    with pytest.raises(FirstTokenError, match="No token of these 1 texts contains the trigger '#'"):
        containing([["a", "b"]], "#")
    with pytest.raises(FirstTokenError, match="needs at least 8, not 4"):
        discover(torch.rand(4, 1, 1, 40), classes_of([["a"] * 40] * 4), Discovery())
    with pytest.raises(FirstTokenError, match="at least 16 tokens, not 12"):
        discover(torch.rand(9, 1, 1, 12), classes_of([["a"] * 12] * 9), Discovery())


def record_of(value: float, quiet: float | None, named: int, heads: int, model: str = "some-model") -> Record:
    """A record as far as the verdict reads it; its apostrophe head has the paper's values if `heads` is not 0."""

    def at(number: float) -> dict[str, float]:
        return {"value": number, "low": number - 0.05, "high": number + 0.05, "n": 12}

    trigger = {
        "trigger": "'",
        "heads_of_that_kind": heads,
        "is_one": heads > 0,
        "attention_to_trigger": at(0.9),
        "value_first": at(5.0),
        "value_trigger": at(20.0),
        "value_others": at(10.0),
    }
    values = {
        "value_norm_ratio": at(value),
        "quiet_ratio": None if quiet is None else at(quiet),
        "search": {"named": named, "heads": 72},
        "trigger_head": trigger,
    }
    return Record("no_op", model, {}, values, {})


@pytest.mark.parametrize("model", ["some-model", "google-gemma-7b"])
@pytest.mark.parametrize(
    ("value", "quiet", "named", "heads", "status"),
    [
        (0.2, 0.3, 2, 1, "reproduced"),
        (0.2, 0.3, 2, 0, "partly"),
        (0.2, 0.3, 0, 1, "partly"),
        (0.9, 0.3, 2, 1, "partly"),
        (0.2, None, 2, 1, "partly"),
        (0.48, 0.48, 2, 1, "not reproduced"),
        (0.9, None, 2, 1, "not reproduced"),
    ],
)
def test_verdicts_follow_from_the_numbers(
    value: float, quiet: float | None, named: int, heads: int, status: Status, model: str
) -> None:
    judged = judge(record_of(value, quiet, named, heads, model))
    assert judged.status == status
    assert ("The paper's head" in judged.sentence) == (model == "google-gemma-7b")


def test_the_papers_head_needs_both_values_in_the_papers_order() -> None:
    record = record_of(0.2, 0.3, 2, 1, "google-gemma-7b")
    record.values["trigger_head"]["value_others"] = record.values["trigger_head"]["value_trigger"]
    assert judge(record).status == "partly"


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_the_table_lists_every_rule_that_the_verdict_counts(model: str) -> None:
    record = records.find("no_op", model)
    assert record is not None
    lines = rule_figures.rule_table([record], count=1).text.splitlines()
    assert sum(line.endswith("| yes") for line in lines) == record.values["search"]["named"]


def traces_of_one_head(in_the_middle: list[int]) -> HeadTraces:
    """Twelve texts of forty queries, half of them off the first token and half on it; those named have one query in
    the middle bin, where the head adds as much as off it."""
    attention = torch.cat([torch.full((12, 1, 1, 20), 0.05), torch.full((12, 1, 1, 20), 0.95)], dim=-1)
    added = torch.cat([torch.ones(12, 1, 1, 20), torch.full((12, 1, 1, 20), 0.25)], dim=-1)
    for text in in_the_middle:
        attention[text, 0, 0, 7] = 0.4
    ones = torch.ones(12, 1, 1, 40)
    return HeadTraces(attention, ones, ones, added, torch.ones(12, 1, 40), torch.ones(12, 1))


def test_a_bin_that_few_texts_have_has_an_interval_over_the_draws_that_do() -> None:
    values = measure.norm_summary(traces_of_one_head([2, 9]), seed=0)
    json.dumps(values, allow_nan=False)
    curve = values["by_attention"]["relative_norm"]
    middle = measure.EDGES.index(0.3)
    assert curve[middle] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    assert curve[-1]["value"] == values["quiet_ratio"]["value"] == pytest.approx(0.25)
    assert [number for number, estimate in enumerate(curve) if estimate is None] == [1, 3, 4]
    record = Record("no_op", "some-model", {}, values, {})
    assert "some-model" in figures.quiet([record]).text


def test_a_head_without_values_is_left_out_of_the_median() -> None:
    traces = traces_of_one_head([])
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(12, 1, 5, 40, generator=generator) + 0.5
    norms[:, :, 3] = 0.0
    value = measure.norm_summary(replace(traces, value_norm=norms), seed=0)["value_norm_ratio"]
    ratios = [[float(row[0] / row[1:].mean()) for row in text[[0, 1, 2, 4]]] for text in norms[:, 0]]
    # Of four the lower one in the middle, as torch has it.
    expected = of_python.mean(of_python.median_low(of_text) for of_text in ratios)
    assert value["value"] == pytest.approx(expected, rel=1e-5)
    assert value["low"] <= value["value"] <= value["high"]


def test_a_head_that_never_leaves_in_the_tested_texts_has_no_targets() -> None:
    ids = planted_texts()
    ids[:2][ids[:2] == APOSTROPHE] = 7
    lm = fake_lm(planted_model(), Letters(STRINGS))
    classes = classes_of(strings(ids))
    _, (rule, *_) = discover(first_token_attention.by_query(lm, ids), classes, Discovery(permutations=99))
    assert (rule.head, rule.named) == (1, True)
    tested = [rules.rule_effect(lm, ids[:rows], rule, 0.5, classes, layers=[0]) for rows in (2, 12)]
    json.dumps(tested, allow_nan=False)
    assert tested[0]["targets"] is None
    assert tested[0]["held_on_the_sink"]["rule_says_off"] is None
    assert sum(tested[1]["targets"].values()) == pytest.approx(1)
    for shown in (tested, tested[:1], tested[1:], []):
        record = Record("no_op", "some-model", {}, {"tests": shown}, {})
        text = rule_figures.target_table([record]).text
        assert text.count("some-model") == len(shown)
        assert ("never off" in text) == (tested[0] in shown)
    assert "0 of 1 heads" in rule_figures.tests([Record("no_op", "some-model", {}, {"tests": tested}, {})]).html


def test_texts_without_the_trigger_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(measure, "together", never)
    lm = fake_lm(planted_model(), Letters(STRINGS))
    asked = Parameters(passages=8, norm_passages=2, length=16)
    plain = [" b c d f g h j k l m bb cc dd ff gg hh jj kk"] * 8
    with pytest.raises(FirstTokenError, match="No token of these 8 texts contains the trigger"):
        measure.run(lm, asked, plain)
    with pytest.raises(FirstTokenError, match="is in fewer than two texts"):
        measure.run(lm, asked, [plain[0].replace(" c d", "' d", 1), *plain[1:]])
    two = [text.replace(" c d", "' d", 1) for text in plain[:2]]
    with pytest.raises(AssertionError, match="was run"):
        measure.run(lm, asked, [*two, *plain[2:]])
