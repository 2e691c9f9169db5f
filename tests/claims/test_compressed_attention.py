"""Queries that skip, probabilities in a few bits and questions without some heads, against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fake import fake_lm
from firsttoken.claims.compression import attention_figures, figures, tasks
from firsttoken.claims.compression.choices import choose
from firsttoken.claims.compression.losses import losses
from firsttoken.claims.compression.measure import PROBABILITIES, SKIPPING
from firsttoken.claims.compression.probabilities import Parameters as ProbabilityParameters
from firsttoken.claims.compression.skipping import (
    Parameters,
    Skipping,
    allowed,
    at_random,
    at_rest,
    far_keys,
    skip,
    tiles,
)
from firsttoken.claims.compression.treatments import removed, shortened
from firsttoken.errors import FirstTokenError
from firsttoken.measures import task_scores
from firsttoken.measures.rounding import round_attention
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, attend, plain_scores
from firsttoken.ranges import LARGEST_SEED
from firsttoken.records import Record
from tiny import tiny_model

IDS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(0))
WINDOW = 4


def a_call(sinks: bool = False, softcap: float | None = None) -> AttentionCall:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (2 * torch.randn(2, 3, 20, 8, generator=generator) for _ in range(3))
    logits = torch.randn(1, 3, 1, 1, generator=generator) if sinks else None
    return AttentionCall(q, k, v, 8**-0.5, causal=True, softcap=softcap, sink_logits=logits)


def weights(call: AttentionCall) -> torch.Tensor:
    """Attention (batch, head, query, key), read from values that name the keys."""
    keys = call.key.shape[2]
    named = torch.eye(keys).expand(*call.key.shape[:2], keys, keys)
    return attend(AttentionCall(**{**vars(call), "value": named}))[0]


@pytest.mark.parametrize("sinks", [False, True])
def test_a_query_rests_where_the_first_token_has_most_of_what_is_near(sinks: bool) -> None:
    call = a_call(sinks)
    scores = plain_scores(call)
    for threshold in (0.3, 0.6):
        resting = at_rest(call, WINDOW, threshold)
        for text in range(2):
            for head in range(3):
                for query in range(20):
                    near = sorted({0, *range(max(0, query - WINDOW + 1), query + 1)})
                    total = scores[text, head, query, near].exp().sum()
                    if call.sink_logits is not None:
                        total = total + call.sink_logits[0, head, 0, 0].exp()
                    share = scores[text, head, query, 0].exp() / total
                    expected = query > WINDOW and bool(share > threshold)
                    assert resting[text, head, query] == expected, (text, head, query)
        assert 0 < resting.sum() < resting.numel()


def test_a_query_that_skips_reads_the_first_token_and_the_window() -> None:
    call = a_call()
    resting = at_rest(call, WINDOW, 0.3)
    read = weights(skip(call, WINDOW, resting)) > 0
    for text, head, query in torch.ones_like(resting).nonzero().tolist():
        short = {0, *range(max(0, query - WINDOW + 1), query + 1)}
        expected = sorted(short) if resting[text, head, query] else list(range(query + 1))
        assert read[text, head, query].nonzero()[:, 0].tolist() == expected
    assert torch.equal(read, allowed(skip(call, WINDOW, resting)))


def test_random_queries_are_as_many_and_others() -> None:
    call = a_call()
    far, resting = far_keys(call, WINDOW), at_rest(call, WINDOW, 0.3)
    drawn = at_random(resting, far, seed=0, first_text=0, layer=0)
    assert torch.equal(drawn.sum(-1), resting.sum(-1))
    assert not drawn[..., ~far.any(-1)].any()
    assert not torch.equal(drawn, resting)
    alone = at_random(resting[1:], far, seed=0, first_text=1, layer=0)
    assert torch.equal(alone, drawn[1:]), "a text is drawn for by itself"
    same = resting[:1].expand(2, -1, -1)
    assert not torch.equal(*at_random(same, far, seed=0, first_text=0, layer=0))
    for other in ({"seed": LARGEST_SEED}, {"layer": 1}):
        assert not torch.equal(at_random(resting, far, **{"seed": 0, "first_text": 0, "layer": 0} | other), drawn)


def test_what_random_queries_cost_depends_on_the_seed_and_not_on_the_batch() -> None:
    lm = fake_lm(tiny_model("llama"))
    ids = torch.randint(3, 97, (5, 20), generator=torch.Generator().manual_seed(5))

    def measured(batch_tokens: int, seed: int) -> tuple[torch.Tensor, float, float]:
        hook = Skipping(WINDOW, 0.2, "random", seed)
        return losses(lm, ids, batch_tokens, hook, first=WINDOW), hook.scores_left, hook.blocks_left

    alone, *work = measured(1, 0)
    for batch_tokens in (45, 2048):
        many, *same = measured(batch_tokens, 0)
        torch.testing.assert_close(many, alone, atol=1e-5, rtol=1e-5)
        assert same == pytest.approx(work)
    assert (measured(1, 1)[0] - alone).abs().min() > 1e-4


def test_tiles_are_counted_where_any_score_is_computed() -> None:
    read = torch.rand(2, 3, 10, 13, generator=torch.Generator().manual_seed(0)) > 0.9
    seen = tiles(read, 4)
    assert seen.shape == (2, 3, 3, 4)
    for text, head, row, column in torch.ones_like(seen).nonzero().tolist():
        part = read[text, head, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert seen[text, head, row, column] == part.any()


def test_a_threshold_of_nothing_shortens_every_head_and_one_of_everything_none() -> None:
    model = tiny_model("llama")

    def logits(hook: Any = None) -> torch.Tensor:
        with torch.no_grad(), probe(model, hook=hook):
            out: torch.Tensor = model(IDS, use_cache=False).logits
        return out

    every = {layer: range(4) for layer in range(4)}
    always, never = Skipping(WINDOW, -1.0, "at rest"), Skipping(WINDOW, 1.0, "at rest")
    torch.testing.assert_close(logits(always), logits(shortened(every, WINDOW)))
    torch.testing.assert_close(logits(never), logits())
    assert never.scores_left == 1
    assert never.blocks_left == 1
    near = sum(min(query + 1, WINDOW + 1) for query in range(20))
    assert always.scores_left == pytest.approx(near / (20 * 21 / 2))
    both = [Skipping(WINDOW, 0.2, queries) for queries in ("at rest", "random")]  # type: ignore[arg-type]
    assert (logits(both[0]) - logits(both[1])).abs().max() > 1e-4
    assert both[0].scores_left < 1


@pytest.mark.parametrize("exact", ["none", "first", "another", "largest"])
@pytest.mark.parametrize(("sinks", "softcap"), [(False, None), (True, None), (False, 2.0)])
def test_probabilities_are_rounded_as_in_a_loop(exact: Any, sinks: bool, softcap: float | None) -> None:
    call = a_call(sinks, softcap)
    plain, seen = weights(call), weights(round_attention(call, 2, exact, key=5))
    virtual = 1 - plain.sum(-1)
    for text, head, query in torch.ones(2, 3, 20).nonzero().tolist():
        row = plain[text, head, query].tolist()
        largest = max(range(20), key=lambda k: row[k])
        kept = {"none": [], "first": [0], "another": [5], "largest": [largest]}[exact]
        top = max(row[k] for k in range(20) if k not in kept)
        rounded = [p if k in kept or top == 0 else round(p / (top / 3)) * top / 3 for k, p in enumerate(row)]
        expected = torch.tensor(rounded) / (sum(rounded) + float(virtual[text, head, query]))
        torch.testing.assert_close(seen[text, head, query], expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(weights(round_attention(call, 16, exact, key=5)), plain, atol=1e-4, rtol=1e-3)


def test_questions_under_a_change_are_those_of_a_model_changed_in_its_weights() -> None:
    model = tiny_model("llama")
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(3, 97, (6, 12), generator=generator).tolist()
    with torch.no_grad():
        likeliest = model(torch.tensor(rows), use_cache=False).logits.argmax(-1)
    items = tuple(
        task_scores.TaskText(tuple(row), tuple(task_scores.Question(at, int(answer[at])) for at in (5, 9)))
        for row, answer in zip(rows, likeliest, strict=True)
    )
    task, lm = task_scores.Task("own words", items, 0.0), fake_lm(model)
    assert task_scores.score_under(lm, task, None).all()
    assert torch.equal(task_scores.score_under(lm, task, None), task_scores.score(lm, task))
    chosen = {layer: [0, 1, 2] for layer in range(4)}
    seen = task_scores.score_under(lm, task, removed(chosen))
    with torch.no_grad():
        for layer in model.get_decoder().layers:
            layer.self_attn.o_proj.weight[:, :24] = 0
    assert torch.equal(seen, task_scores.score(lm, task))
    assert not seen.all()


def test_every_part_runs_and_is_drawn() -> None:
    lm = fake_lm(tiny_model("llama"))
    passages = [SKIPPING.passages(Parameters())[0][:1000]]
    skipped = SKIPPING.run(lm, Parameters(long_windows=2, long_length=40, window=8), passages)
    assert [one["threshold"] for one in skipped["arms"]] == [t for t in (0.9, 0.7, 0.5, 0.3) for _ in range(2)]
    left = [one["scores_left"] for one in skipped["arms"] if one["queries"] == "at rest"]
    assert left == sorted(left, reverse=True), "a lower threshold skips more"
    small = ProbabilityParameters(windows=2, length=24, window=8)
    rounded = PROBABILITIES.run(lm, small, passages)
    assert len(rounded["arms"]) == 12
    assert len(rounded["first_exact"]) == 3
    cost = {(one["bits"], one["exact"]): one["increase"]["value"] for one in rounded["arms"]}
    assert abs(cost[8, "none"]) < abs(cost[2, "none"])
    first = {one["bits"]: one["value"] for one in rounded["first_exact"]}
    assert first[2] == pytest.approx(cost[2, "first"] - cost[2, "another"])
    for draw, values in (
        (attention_figures.skipping, skipped),
        (attention_figures.skipping_table, skipped),
        (attention_figures.probabilities, rounded),
    ):
        assert draw([Record("compression", name, {}, values, {}) for name in ("one", "other")])


def test_tasks_without_heads(bundled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real model and its shortest task: contrasts are what the shares of right answers say."""
    lm = bundled("smollm2-135m")
    short = task_scores.copying(lm, length=6, count=2)
    monkeypatch.setattr(task_scores, "standard_tasks", lambda *asked: [short])
    monkeypatch.setattr(tasks, "rest", lambda *asked: torch.rand(30, 9, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(tasks, "layer_numbers", lambda lm, rows: list(range(rows)))
    values = tasks.run(lm, tasks.Parameters(task_draws=2), [])
    assert values["intact"]["right"]["n"] == values["tasks"]["copying"]["questions"] == 10
    right = {(one["share"], one["choice"]): one["right"]["value"] for one in values["heads"]}
    assert len(right) == 8
    for one in values["rest_minus_random"]:
        share = one["share"]
        assert one["value"] == pytest.approx(right[share, "most at rest"] - right[share, one["choice"]])
    chosen = choose(torch.rand(30, 9, generator=torch.Generator().manual_seed(0)), 0.2, "least at rest", range(30))
    expected = task_scores.score_under(lm, short, removed(chosen)).double().mean()
    assert right[0.2, "least at rest"] == pytest.approx(float(expected))
    assert figures.tasks([Record("compression", "some-model", {}, values, {})])


def test_bad_input() -> None:
    with pytest.raises(FirstTokenError, match="at least two long_windows"):
        Parameters(long_length=40)
    with pytest.raises(FirstTokenError, match="twice that, not 12, 32 and 40"):
        ProbabilityParameters(length=40)
    with pytest.raises(FirstTokenError, match="task_draws must be at least 2"):
        tasks.Parameters(task_draws=1)
