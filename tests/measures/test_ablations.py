"""The arms against eager attention and plain loops, and what must not change anything."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from fake import Letters, fake_lm
from firsttoken import models, texts
from firsttoken.errors import FirstTokenError
from firsttoken.measures.ablations import (
    MEANING,
    Ablation,
    Means,
    agreement,
    inputs,
    intervened,
    ordinary_means,
    residuals_changed,
    run_arm,
)
from firsttoken.measures.first_token_attention import alphas
from firsttoken.models.anatomy import find_layers
from firsttoken.models.bundled import BUNDLED
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, attend, log_sum_exp, plain_scores
from firsttoken.probe.interventions import (
    forbid_key,
    forbid_key_in_heads,
    in_every_layer,
    in_layers,
    only_key,
    set_first_value,
)
from firsttoken.probe.losses import predict, token_losses
from tiny import ARCHITECTURES, tiny_model

LENGTH = 17


def ids(rows: int = 3) -> Tensor:
    torch.manual_seed(1)
    tokens = torch.randint(3, 97, (rows, LENGTH))
    tokens[:, 0] = 1
    return tokens


def some_call(mask: str) -> AttentionCall:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, LENGTH, 8).unbind(0)
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    window = (causal & ~causal.tril(-6))[None, None]
    additive = torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~causal, -torch.inf)
    given = {"causal": None, "window": window, "additive": additive}[mask]
    return AttentionCall(q, k, v, 0.3, given, causal=given is None)


def weights(call: AttentionCall) -> Tensor:
    return plain_scores(call).softmax(-1)


@pytest.mark.parametrize("mask", ["causal", "window", "additive"])
@pytest.mark.parametrize("key", [0, 4])
def test_forbidding_a_key_divides_the_row_by_what_is_left(mask: str, key: int) -> None:
    call = some_call(mask)
    expected = weights(call)
    expected[:, :, key + 1 :, key] = 0
    expected /= expected.sum(-1, keepdim=True)
    torch.testing.assert_close(weights(forbid_key(call, key)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "gemma3_text", "gpt2"])
def test_masking_key_0_through_the_probe_equals_eager_with_the_column_removed(name: str) -> None:
    """In the first layer, whose input does not depend on the mask: eager's map without column 0, renormalised."""
    model = tiny_model(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(ids(), output_attentions=True, use_cache=False).attentions[0].clone()
    expected[..., 1:, 0] = 0
    expected /= expected.sum(-1, keepdim=True)
    with torch.no_grad(), probe(model, keys=range(LENGTH), hook=in_every_layer(forbid_key)) as p:
        model(ids(), use_cache=False)
    torch.testing.assert_close(p.attention_per_key[0], expected, atol=1e-5, rtol=0)
    assert p.attention_per_key[..., 1:, 0].max() == 0, "in every layer"


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3"])
def test_with_rotary_positions_masking_equals_deleting(name: str) -> None:
    lm = fake_lm(tiny_model(name))
    queries = range(1, LENGTH - 1)
    mask, delete = (run_arm(lm, ids(), queries, arm).predictions.loss for arm in ("mask", "delete"))
    torch.testing.assert_close(mask, delete, atol=1e-3, rtol=1e-3)


def test_with_learned_positions_masking_is_not_deleting() -> None:
    lm = fake_lm(tiny_model("gpt2"))
    queries = range(1, LENGTH - 1)
    mask, delete = (run_arm(lm, ids(), queries, arm).predictions.loss for arm in ("mask", "delete"))
    assert (mask - delete).abs().mean() > 0.01


@pytest.mark.parametrize("mask", ["causal", "window", "additive"])
def test_the_value_read_from_the_first_token(mask: str) -> None:
    call = some_call(mask)
    value = torch.randn(4, 8)
    changed = set_first_value(call, value)
    output, _ = attend(changed)
    plain = call.value.clone()
    plain[:, :, 0] = value
    expected = weights(call) @ plain
    expected[:, :, 0] = call.value[:, :, 0]  # the first token keeps its own
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(weights(changed)[:, :, 1:, :LENGTH], weights(call)[:, :, 1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "gemma3_text", "gpt2"])
def test_putting_back_the_same_changes_nothing(name: str) -> None:
    """A value replaced by itself, and a residual replaced by itself."""
    lm = fake_lm(tiny_model(name))
    one = ids(1)
    values: dict[int, Tensor] = {}
    residuals: dict[int, Tensor] = {}

    def see(module: object, call: AttentionCall) -> AttentionCall:
        values[module.layer_idx] = call.value[0, :, 0].clone()  # type: ignore[attr-defined]
        return call

    def keep(layer: int, hidden: Tensor) -> Tensor:
        residuals[layer] = hidden[0, 0].clone()
        return hidden

    queries = range(1, LENGTH - 1)
    with residuals_changed(lm, keep), probe(lm.model, hook=see):
        expected = predict(lm, one, queries).loss
    assert sorted(residuals) == [0, 1, 2, 3]
    means = Means(values, residuals)
    for arm in ("mean_value", "mean_residual"):
        loss = run_arm(lm, one, queries, arm, means).predictions.loss
        torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
        doubled = Means(
            {k: v + 1 for k, v in values.items()}, {k: v + torch.randn_like(v) for k, v in residuals.items()}
        )
        assert (run_arm(lm, one, queries, arm, doubled).predictions.loss - expected).abs().max() > 1e-3


def test_the_intact_arm_is_the_model_itself() -> None:
    lm = fake_lm(tiny_model("llama"))
    with torch.no_grad():
        logits = lm.model(ids()).logits.log_softmax(-1)
    expected = -logits[:, 1:-1].gather(-1, ids()[:, 2:, None])[..., 0]
    outcome = run_arm(lm, ids(), range(1, LENGTH - 1), "intact", batch_tokens=LENGTH)
    torch.testing.assert_close(outcome.predictions.loss, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(outcome.predictions.top[..., 0], logits[:, 1:-1].argmax(-1))
    with torch.no_grad(), probe(lm.model) as p:
        lm.model(ids())
    torch.testing.assert_close(outcome.alpha, p.attention.mean(-1).transpose(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_of_the_intact_arm_is_what_other_chapters_measure(name: str) -> None:
    """On every architecture; with a virtual sink, query 0 does not give all of its attention to itself."""
    lm = fake_lm(tiny_model(name))
    outcome = run_arm(lm, ids(), range(1, LENGTH - 1), "intact")
    torch.testing.assert_close(outcome.alpha, alphas(lm, ids(), execution="resident"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "gpt2", "gpt_oss-sinks"])
@pytest.mark.parametrize("arm", ["zero_value", "mean_value"])
def test_another_value_of_the_first_token_leaves_attention_as_it_is(name: str, arm: Ablation) -> None:
    """In the first layer that of all queries, in every layer that of the first token, which keeps its own value."""
    lm = fake_lm(tiny_model(name))
    means = ordinary_means(lm, ids())
    with torch.no_grad(), probe(lm.model) as p:
        lm.model(ids())
    untouched = p.attention
    with torch.no_grad(), intervened(lm, arm, means) as p:
        lm.model(ids())
    torch.testing.assert_close(p.attention[0], untouched[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(p.attention[..., 0], untouched[..., 0], atol=1e-5, rtol=0)
    assert (p.attention[1:] - untouched[1:]).abs().max() > 1e-3


def test_deleting_predicts_the_same_tokens() -> None:
    lm = fake_lm(tiny_model("llama"))
    expected = predict(lm, ids()[:, 1:], range(LENGTH - 2)).loss
    loss = run_arm(lm, ids(), range(1, LENGTH - 1), "delete").predictions.loss
    torch.testing.assert_close(loss, expected)


def test_every_arm_runs_and_only_the_control_leaves_the_sink() -> None:
    lm = fake_lm(tiny_model("llama"), Letters(prepends=False))
    means = ordinary_means(lm, ids())
    intact = run_arm(lm, ids(), range(1, LENGTH - 1), "intact")
    for arm in MEANING:
        outcome = run_arm(lm, ids(), range(1, LENGTH - 1), arm, means)
        assert outcome.predictions.loss.shape == intact.predictions.loss.shape
        assert outcome.predictions.loss.isfinite().all()
        if arm != "intact":
            assert not torch.allclose(outcome.predictions.loss, intact.predictions.loss, atol=1e-4), arm
    masked = run_arm(lm, ids(), range(1, LENGTH - 1), "mask").alpha
    torch.testing.assert_close(masked, torch.full_like(masked, 1 / LENGTH)), "query 0 has nothing else"


def test_means_leave_out_the_first_positions() -> None:
    lm = fake_lm(tiny_model("llama"))
    with torch.no_grad():
        hidden = lm.model.model(ids(), output_hidden_states=True).hidden_states
    means = ordinary_means(lm, ids(), first=4)
    torch.testing.assert_close(means.residual[2], hidden[2][:, 4:].mean((0, 1)), atol=1e-5, rtol=1e-4)
    assert means.value[1].shape == (4, 8)


def test_replacing_draws_ordinary_tokens() -> None:
    lm = fake_lm(tiny_model("llama"))
    given, moved = inputs(lm, ids(), "replace", seed=3)
    assert moved == 0
    assert torch.equal(given[:, 1:], ids()[:, 1:])
    assert not (given[:, 0] == 1).any()
    assert torch.equal(given, inputs(lm, ids(), "replace", seed=3)[0])


def test_heads_are_changed_alone() -> None:
    call = some_call("causal")
    held = weights(only_key(call, heads=[1]))
    torch.testing.assert_close(held[:, 1, :, 0], torch.ones(2, LENGTH))
    torch.testing.assert_close(held[:, 0], weights(call)[:, 0], atol=1e-6, rtol=1e-5)
    where = torch.zeros(2, LENGTH, dtype=torch.bool)
    where[0, 5] = True
    once = weights(only_key(call, heads=[1], where=where))
    assert once[0, 1, 5, 0] == 1
    torch.testing.assert_close(once[1], weights(call)[1], atol=1e-6, rtol=1e-5)
    kept = weights(forbid_key_in_heads(call, [2]))
    assert kept[:, 2, 1:, 0].max() == 0
    torch.testing.assert_close(kept[:, 3], weights(call)[:, 3], atol=1e-6, rtol=1e-5)


def test_interventions_count_positions_from_the_start_of_a_cached_text() -> None:
    model = tiny_model("llama")
    change = in_every_layer(forbid_key)
    with torch.no_grad(), probe(model, hook=change):
        whole = model(ids()).logits[:, -1]
        cache = model(ids()[:, :-1], use_cache=True).past_key_values
        last = model(ids()[:, -1:], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(last, whole, atol=1e-4, rtol=1e-4)


def test_only_the_named_layers_are_changed() -> None:
    model = tiny_model("llama")
    with torch.no_grad(), probe(model, hook=in_layers({2: forbid_key})) as p:
        model(ids())
    assert p.attention[2, ..., 1:].max() == 0
    assert p.attention[1, ..., 1:].max() > 0


def test_agreement_by_hand() -> None:
    a = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    b = torch.tensor([[[1, 3, 9], [5, 4, 6]]])
    top1, topk = agreement(a, b)
    assert top1.tolist() == [0.5]
    assert topk.item() == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_masked_model_equals_eager_with_the_column_forbidden(name: str) -> None:
    """Reference: transformers' eager attention with an additive mask given from outside, in all layers."""
    lm = fake_lm(tiny_model(name))
    given = ids()
    blocked = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
    blocked[1:, 0] = -torch.inf
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        mask = blocked[None, None].expand(len(given), 1, -1, -1)
        out = lm.model(given, attention_mask=mask, output_attentions=True, use_cache=False)
    lm.model.set_attn_implementation("sdpa")
    with torch.no_grad(), probe(lm.model, keys=range(LENGTH), hook=in_every_layer(forbid_key)) as p:
        logits = lm.model(given, use_cache=False).logits
    torch.testing.assert_close(p.attention_per_key, torch.stack(out.attentions), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, out.logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", BUNDLED)
def test_zero_value_of_a_real_model_by_another_way(name: str) -> None:
    """The arm whose result is hardest to believe: the sink is back and the loss is not. Reference: whole maps, with
    what later queries get from the first token taken out of each head's output."""

    def subtract(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scores = query @ key.mT * kwargs["scaling"]
        weights = (scores + mask if mask is not None else scores.masked_fill(future(scores), -torch.inf)).softmax(-1)
        read = weights @ value
        read[:, :, 1:] -= weights[:, :, 1:, :1] * value[:, :, :1]
        return read.transpose(1, 2).contiguous(), weights

    def future(scores: Tensor) -> Tensor:
        return torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)

    lm = models.load(name)
    given = texts.encode(lm, [passage.text for passage in texts.passages()[:2]], 40, "auto")
    queries = range(1, 39)
    outcome = run_arm(lm, given, queries, "zero_value")
    AttentionInterface.register("subtract_first", subtract)
    ALL_MASK_ATTENTION_FUNCTIONS.register("subtract_first", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("subtract_first")
    try:
        expected = predict(lm, given, queries)
    finally:
        lm.model.set_attn_implementation(before)
    torch.testing.assert_close(outcome.predictions.loss, expected.loss, atol=5e-3, rtol=1e-3)
    intact = predict(lm, given, queries)
    assert (expected.loss - intact.loss).mean() > 0.2, "the arm does something"


def other_first(given: Tensor) -> Tensor:
    changed = given.clone()
    changed[:, 0] = 41
    return changed


@pytest.mark.parametrize(("arm", "forgets"), [("mask", True), ("mean_residual", True), ("delete", True),
                                              ("zero_value", False), ("mean_value", False), ("mask_other", False),
                                              ("intact", False)])  # fmt: skip
def test_which_arms_forget_what_the_first_token_was(arm: Ablation, forgets: bool) -> None:
    lm = fake_lm(tiny_model("llama"))
    means = ordinary_means(lm, ids())
    before, after = (
        run_arm(lm, given, range(1, LENGTH - 1), arm, means).predictions.loss for given in (ids(), other_first(ids()))
    )
    assert torch.allclose(before, after, atol=1e-4) == forgets


def test_the_control_forbids_one_ordinary_key() -> None:
    lm = fake_lm(tiny_model("llama"))
    with torch.no_grad(), probe(lm.model, keys=[0, 4], hook=in_every_layer(partial(forbid_key, key=4))) as p:
        lm.model(ids())
    assert p.attention_per_key[..., 5:, 1].max() == 0
    assert p.attention_per_key[..., 4, 1].max() > 0
    assert p.attention_per_key[..., 5:, 0].max() > 0


def test_losses_against_cross_entropy_on_all_logits() -> None:
    lm = fake_lm(tiny_model("gemma2-softcap"))
    with torch.no_grad():
        logits = lm.model(ids()).logits
    predictions = predict(lm, ids(), [2, 5, 11], batch_tokens=4)
    for column, query in enumerate((2, 5, 11)):
        expected = F.cross_entropy(logits[:, query], ids()[:, query + 1], reduction="none")
        torch.testing.assert_close(predictions.loss[:, column], expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(predictions.top[:, column], logits[:, query].topk(5).indices)


def test_token_losses_of_more_rows_than_run_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(3, 7, 50, generator=generator)
    goal = torch.randint(50, (3, 7), generator=generator)
    expected = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none").view(3, 7)
    torch.testing.assert_close(token_losses(logits, goal), expected)


def test_clear_messages() -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="no arm 'erase'"), intervened(lm, "erase"):  # type: ignore[arg-type]
        pass
    with pytest.raises(FirstTokenError, match="needs the means"), intervened(lm, "mean_value"):
        pass
    with pytest.raises(FirstTokenError, match="from the second token on"):
        run_arm(lm, ids(), range(4), "intact")
    with pytest.raises(FirstTokenError, match="a text of 17 tokens is too short"):
        predict(lm, ids(), [LENGTH - 1])
    with pytest.raises(FirstTokenError, match="no head 9; this layer has heads 0 to 3"):
        only_key(some_call("causal"), heads=[9])
    tokenizer = Letters()
    tokenizer.bos_token_id = None
    with pytest.raises(FirstTokenError, match="no BOS token"):
        run_arm(fake_lm(tiny_model("llama"), tokenizer), ids(), range(1, 5), "add_bos")


def test_out_of_memory_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsttoken.probe import losses

    def full(*arguments: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(losses, "logits_at", full)
    with pytest.raises(FirstTokenError, match="lower batch_tokens"):
        predict(fake_lm(tiny_model("llama")), ids(), [3])


@pytest.mark.parametrize("kind", ["window", "window, additive", "window, lowest finite number"])
@pytest.mark.parametrize("key", [0, 4])
def test_a_head_is_held_on_a_key_that_the_window_has_left_behind(kind: str, key: int) -> None:
    call = some_call("window")
    assert call.mask is not None
    if kind != "window":
        lowest = -torch.inf if kind == "window, additive" else torch.finfo(torch.float32).min
        call = replace(call, mask=torch.zeros(call.mask.shape).masked_fill(~call.mask, lowest))
    held = weights(only_key(call, key, heads=[1]))
    expected = weights(call)
    for query in range(key, LENGTH):
        expected[:, 1, query] = 0
        expected[:, 1, query, key] = 1
    torch.testing.assert_close(held, expected, atol=1e-6, rtol=1e-5)
    where = torch.zeros(2, LENGTH, dtype=torch.bool)
    where[0, LENGTH - 1] = True
    once = weights(only_key(call, key, heads=[1], where=where))
    assert once[0, 1, -1, key] == 1
    torch.testing.assert_close(once[1], weights(call)[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(once[0, 1, :-1], weights(call)[0, 1, :-1], atol=1e-6, rtol=1e-5)


def test_a_biased_score_of_the_key_keeps_its_bias() -> None:
    """Beside a virtual key, how much the row attends to its only key depends on that."""
    call = replace(some_call("additive"), sink_logits=torch.zeros(1, 4, 1, 1))
    assert call.mask is not None
    call = replace(call, mask=call.mask + 0.7)
    held = only_key(call)
    expected = plain_scores(call)[..., 0].sigmoid()  # of exp(s) over exp(s) + exp(0)
    there = (plain_scores(held) - log_sum_exp(plain_scores(held), held.sink_logits)[..., None]).exp()
    torch.testing.assert_close(there[..., 0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["gemma3_text", "mistral-sliding", "cohere2"])
def test_a_sliding_layer_adds_the_first_value_at_every_query_of_a_held_head(name: str) -> None:
    """What the output projection of layer 0, of a window of 6 tokens, reads of head 1; the other heads stay."""
    model = tiny_model(name)
    values: list[Tensor] = []
    mixed: list[Tensor] = []

    def see(module: object, call: AttentionCall) -> AttentionCall:
        if module.layer_idx == 0:  # type: ignore[attr-defined]
            values.append(call.value[:, 1, 0])
        return call

    def held(module: object, call: AttentionCall) -> AttentionCall:
        return in_layers({0: partial(only_key, heads=[1])})(module, see(module, call))

    output = find_layers(model)[1][0].self_attn.o_proj
    handle = output.register_forward_pre_hook(lambda module, given: mixed.append(given[0].unflatten(-1, (4, 8))))
    with torch.no_grad():
        for hook in (see, held):
            with probe(model, hook=hook):
                model(ids(), use_cache=False)
    handle.remove()
    plain, changed = mixed
    torch.testing.assert_close(changed[:, :, 1], values[1][:, None].expand(-1, LENGTH, -1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(changed[:, :, [0, 2, 3]], plain[:, :, [0, 2, 3]], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain[:, 7:, 1], changed[:, 7:, 1], atol=1e-3)


def test_no_head_is_held_on_a_key_that_a_cache_has_dropped() -> None:
    call = some_call("causal")
    rest = replace(call, key=call.key[:, :, 3:], value=call.value[:, :, 3:], query=call.query[:, :, -1:])
    rest = replace(rest, positions=torch.arange(3, LENGTH), causal=False)
    with pytest.raises(FirstTokenError, match="cache has dropped key 0"):
        only_key(rest, heads=[1])
    torch.testing.assert_close(weights(only_key(rest, heads=[])), weights(rest))


class TwoFirst(Letters):
    """Puts two tokens first, as GLM's tokenizer does."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        seen = super().__call__(text, add_special_tokens=False)
        return SimpleNamespace(input_ids=[1, 2, *seen.input_ids] if add_special_tokens else seen.input_ids)


def test_two_tokens_in_front_move_the_text_by_two() -> None:
    lm = fake_lm(tiny_model("llama"), TwoFirst())
    queries = torch.arange(1, LENGTH - 1)
    given, moved = inputs(lm, ids(), "add_bos")
    assert moved == 2
    assert torch.equal(given[:, 2:], ids())
    with torch.no_grad():
        logits = lm.model(given).logits
    expected = F.cross_entropy(logits[:, queries + 2].transpose(1, 2), ids()[:, queries + 1], reduction="none")
    loss = run_arm(lm, ids(), queries, "add_bos").predictions.loss
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
