"""The smallest model against loops over single queries, keys and elements; many seeds at once against each alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.backcopy import texts
from firsttoken.pretraining.smallest import VARIANTS, Smallest, Variant, weights
from firsttoken.pretraining.smallest_training import HELD_OUT, Setting, train


def row_by_hand(scores: list[float], variant: Variant, sink: float) -> list[float]:
    """Weights of one query over the keys up to itself."""
    if variant == "sigmoid":
        return [1 / (1 + math.exp(-s)) for s in scores]
    extra = {"off_by_one": 1.0, "sink_logit": math.exp(sink), "split_heads": math.exp(sink)}.get(variant, 0.0)
    total = extra + sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_a_loop(variant: Variant) -> None:
    scores = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    sink = torch.tensor([0.7, -math.inf], dtype=torch.float64)
    shares = weights(scores, variant, sink if variant in ("sink_logit", "split_heads") else None)
    for text in range(2):
        for query in range(6):
            expected = row_by_hand(scores[text, query, : query + 1].tolist(), variant, float(sink[text]))
            assert shares[text, query].tolist() == pytest.approx([*expected, *[0.0] * (5 - query)], abs=1e-12)


def norm_by_hand(x: Tensor, gain: Tensor) -> Tensor:
    return torch.stack([v / math.sqrt(float((v * v).mean()) + 1e-6) for v in x]) * gain


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [7, 5])
def test_model_is_the_loop_over_queries(variant: Variant, length: int) -> None:
    torch.manual_seed(0)
    model = Smallest(vocabulary=11, length=7, width=8, variant=variant).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    ids = torch.randint(11, (1, length))
    with torch.no_grad():
        read = model(ids)
        x = torch.stack([model.token.weight[t] + model.place.weight[p] for p, t in enumerate(ids[0])])
        seen = norm_by_hand(x, model.before_head.weight)
        sink = 0.0 if model.sink_logit is None else float(model.sink_logit)
        heads = {"two_heads": 2, "split_heads": 2}.get(variant, 1)
        size = 8 // heads
        rows, depths = [], []
        for query in range(length):
            mixed = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                q = model.query.weight[own] @ seen[query]
                scores = [float(q @ (model.key.weight[own] @ seen[k])) / math.sqrt(size) for k in range(query + 1)]
                row = row_by_hand(scores, variant, -math.inf if head else sink)
                assert read.attention[0, head, query, : query + 1].tolist() == pytest.approx(row, abs=1e-12)
                values = [w * (model.value.weight[own] @ seen[key]) for key, w in enumerate(row)]
                mixed += sum(values, torch.zeros(size)).tolist()
            if model.gate is not None:
                opened = model.gate.weight @ seen[query] + model.gate.bias
                mixed = [m / (1 + math.exp(-g)) for m, g in zip(mixed, opened, strict=True)]
            depths.append(1.0)
            if model.depth is not None:
                depths[-1] = 1 / (1 + math.exp(-float(model.depth.weight[0] @ seen[query] + model.depth.bias)))
            rows.append(x[query] + depths[-1] * model.out.weight @ torch.tensor(mixed).double())
        assert read.depth[0].tolist() == pytest.approx(depths, abs=1e-12)
        y = torch.stack(rows)
        added = model.mlp[2](F.gelu(model.mlp[0](norm_by_hand(y, model.before_mlp.weight))))
        y = y + torch.tensor(depths)[:, None] * added
        assert torch.allclose(read.logits[0], norm_by_hand(y, model.before_logits.weight) @ model.logits.weight.T)
        assert torch.allclose(read.value[0].transpose(0, 1).flatten(1), seen @ model.value.weight.T)


def alone(setting: Setting, seed: int) -> tuple[Smallest, list[float]]:
    """One seed trained by a plain loop, and its losses."""
    task, model = setting.task(seed), setting.model(seed).double()
    random = torch.Generator().manual_seed(seed + (1 << 20))
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate)

    def fresh(tokens: int) -> Tensor:
        shape = (1, tokens // setting.length, setting.length)
        uniform = torch.rand(shape, generator=random, dtype=torch.float64)
        return texts(task.cumulative()[None], uniform, task)[0]

    fresh(HELD_OUT)
    seen = []
    for _ in range(setting.steps):
        ids = fresh(setting.tokens_per_step)
        logits = model(ids).logits
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    return model, seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_seeds_at_once_are_each_as_alone(variant: Variant) -> None:
    setting = Setting(length=8, variant=variant, symbols=10, width=16, tokens_per_step=256, steps=12, every=6)
    runs = train(setting, seeds=[3, 0, 7], dtype=torch.float64)
    assert [run.seed for run in runs] == [3, 0, 7]
    for run in runs:
        model, losses = alone(setting, run.seed)
        assert losses[-1] < losses[0]
        for name, weight in model.state_dict().items():
            assert torch.allclose(run.model.state_dict()[name], weight, atol=1e-9), name


def test_a_seed_that_is_done_leaves_the_others_as_they_are() -> None:
    setting = Setting(length=8, symbols=6, triggers=2, width=16, tokens_per_step=512, learning_rate=1e-2,
                      steps=400, enough=0.1, settle=4, every=2)  # fmt: skip
    together = train(setting, seeds=range(4), dtype=torch.float64)
    assert len({run.steps for run in together}) > 1, "no seed left before another; choose another threshold"
    for run in together:
        (single,) = train(setting, seeds=[run.seed], dtype=torch.float64)
        assert (single.steps, single.learnt) == (run.steps, run.learnt)
        assert run.learnt is not None
        assert run.steps == run.learnt + 4
        assert single.history[-1] == pytest.approx(run.history[-1], abs=1e-6)


def test_a_point_is_what_loops_over_the_held_out_texts_say() -> None:
    setting = Setting(length=8, symbols=6, triggers=2, width=16, tokens_per_step=256, steps=5, every=5)
    (run,) = train(setting, seeds=[1], dtype=torch.float64)
    random = torch.Generator().manual_seed(1 + (1 << 20))
    uniform = torch.rand(1, HELD_OUT // 8, 8, generator=random, dtype=torch.float64)
    ids = texts(setting.task(1).cumulative()[None], uniform, setting.task(1))[0]
    logits, attention = run.model(ids).logits, run.model(ids).attention[:, 0]
    value = run.model(ids).value[:, 0]
    seen: dict[str, list[float]] = {name: [] for name in run.history[-1] if name not in ("step", "value_norm")}
    for text in range(200, 260):  # of all; the rest is only compared as a mean below
        assert float(attention[text].triu(1).abs().max()) == 0
    negative = -logits.log_softmax(-1)
    for text, row in enumerate(ids.tolist()):
        for query in range(1, 8):
            where = "at" if row[query] in (1, 2) else "away"
            line = attention[text, query].tolist()
            seen[f"first_{where}"].append(line[0])
            seen[f"itself_{where}"].append(line[query])
            seen[f"previous_{where}"].append(line[query - 1])
            seen[f"row_{where}"].append(sum(line))
            if query < 7:
                seen[f"loss_{where}"].append(float(negative[text, query, row[query + 1]]))
    assert run.history[-1]["step"] == 5
    for name, values in seen.items():
        assert run.history[-1][name] == pytest.approx(sum(values) / len(values), abs=1e-9), name
    norms = value.norm(dim=-1)
    assert run.history[-1]["value_norm"] == pytest.approx(float(norms[:, 0].mean() / norms[:, 1:].mean()))


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(Setting(length=8, tokens_per_step=64, steps=1), seeds=[0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Setting(length=48), "do not divide"),
        (lambda: Setting(steps=0), "at least one step"),
        (lambda: Smallest(5, 5, variant="relu"), "no variant 'relu'"),  # type: ignore[arg-type]
        (lambda: train(Setting(), seeds=[]), "at least one seed"),
        (lambda: train(Setting(), seeds=[1, 1]), "none twice"),
    ],
)
def test_bad_input_is_one_sentence(make: object, says: str) -> None:
    with pytest.raises(FirstTokenError, match=says):
        make()  # type: ignore[operator]
