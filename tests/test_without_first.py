"""The arms that take the first token away, against eager attention, loops and what must not change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from firsttoken.attention import AttentionCall, attend_chunked, plain_scores
from firsttoken.errors import FirstTokenError
from firsttoken.interventions import forbid_key, forbid_key_in_heads, in_every_layer, only_key, set_first_value
from firsttoken.losses import predict
from firsttoken.probe import probe
from firsttoken.without_first import OTHER, Arm, agreement, first_attention, inputs, ordinary_means, run_arm
from small_lm import small_lm

LENGTH = 14
ROTARY = ["llama", "qwen2", "gemma", "gpt_neox", "olmo2"]


def ids(seed: int = 1, rows: int = 3) -> Tensor:
    return torch.randint(3, 97, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


def call(seed: int = 0) -> AttentionCall:
    q, k, v = torch.randn(3, 2, 4, LENGTH, 8, generator=torch.Generator().manual_seed(seed)).unbind(0)
    return AttentionCall(q, k, v, 0.5, causal=True)


def other_first(given: Tensor) -> Tensor:
    changed = given.clone()
    changed[:, 0] = (changed[:, 0] - 3 + 41) % 94 + 3
    return changed


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_masked_model_equals_eager_with_the_column_forbidden(name: str) -> None:
    """Reference: transformers' eager attention with an additive mask given from outside, in all layers."""
    lm = small_lm(name)
    given = ids()
    blocked = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
    blocked[1:, 0] = -torch.inf
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        mask = blocked[None, None].expand(len(given), 1, -1, -1)
        out = lm.model(given, attention_mask=mask, output_attentions=True, use_cache=False)
    lm.model.set_attn_implementation("sdpa")
    with torch.no_grad(), probe(lm.model, keys=range(LENGTH), hook=in_every_layer(forbid_key)) as p:
        found = lm.model(given, use_cache=False).logits
    torch.testing.assert_close(p.attention_per_key, torch.stack(out.attentions), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, out.logits, atol=1e-3, rtol=1e-3)


def test_forbidden_key_is_the_map_without_its_column_divided_by_the_rest() -> None:
    plain = plain_scores(call()).softmax(-1)
    for changed, heads in ((forbid_key(call()), [0, 1, 2, 3]), (forbid_key_in_heads(call(), [1, 3]), [1, 3])):
        expected = plain.clone()
        expected[:, heads, 1:, 0] = 0
        expected /= expected.sum(-1, keepdim=True)
        torch.testing.assert_close(plain_scores(changed).softmax(-1), expected, atol=1e-6, rtol=0)
    assert plain[..., 1:, 0].max() > 0.2, "nothing was forbidden"


def test_only_key_sends_all_attention_there_in_the_chosen_rows() -> None:
    where = torch.zeros(2, LENGTH, dtype=torch.bool)
    where[0, 5] = where[1, 7] = True
    found = plain_scores(only_key(call(), heads=[2], where=where)).softmax(-1)
    expected = plain_scores(call()).softmax(-1)
    for row, query in ((0, 5), (1, 7)):
        expected[row, 2, query] = 0
        expected[row, 2, query, 0] = 1
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_first_value_is_replaced_for_others_and_kept_for_itself() -> None:
    new = torch.randn(4, 8)
    weights = plain_scores(call()).softmax(-1)
    values = call().value.clone()
    own = values[:, :, 0].clone()
    values[:, :, 0] = new
    expected = weights @ values
    expected[:, :, 0] = own
    output, _ = attend_chunked(set_first_value(call(), new))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ROTARY)
def test_with_rotary_positions_masking_is_deleting(name: str) -> None:
    lm = small_lm(name)
    queries = range(1, LENGTH - 1)
    mask, delete = (run_arm(lm, ids(), queries, arm) for arm in ("mask", "delete"))
    torch.testing.assert_close(mask.predictions.loss, delete.predictions.loss, atol=1e-3, rtol=1e-4)


def test_with_learned_positions_masking_is_not_deleting() -> None:
    lm = small_lm("gpt2")
    mask, delete = (run_arm(lm, ids(), range(1, LENGTH - 1), arm) for arm in ("mask", "delete"))
    assert (mask.predictions.loss - delete.predictions.loss).abs().max() > 1e-2


@pytest.mark.parametrize(("arm", "forgets"), [("mask", True), ("mean_residual", True), ("delete", True),
                                              ("zero_value", False), ("mean_value", False), ("mask_other", False),
                                              ("intact", False)])  # fmt: skip
def test_which_arms_forget_what_the_first_token_was(arm: Arm, forgets: bool) -> None:
    lm = small_lm("llama")
    means = ordinary_means(lm, ids(9))
    before, after = (
        run_arm(lm, given, range(1, LENGTH - 1), arm, means).predictions.loss for given in (ids(), other_first(ids()))
    )
    assert torch.allclose(before, after, atol=1e-4) == forgets


def test_every_arm_but_intact_changes_something() -> None:
    lm = small_lm("llama")
    means = ordinary_means(lm, ids(9))
    queries = range(OTHER + 1, LENGTH - 1)
    intact = run_arm(lm, ids(), queries, "intact").predictions.loss
    for arm in ("delete", "replace", "mask", "zero_value", "mean_value", "mean_residual", "mask_other", "add_bos"):
        changed = run_arm(lm, ids(), queries, arm, means).predictions.loss
        assert changed.shape == intact.shape
        assert (changed - intact).abs().max() > 1e-3, arm


def test_replacing_draws_from_the_texts_and_leaves_the_rest() -> None:
    given, moved = inputs(small_lm(), ids(), "replace", seed=3)
    assert moved == 0
    assert torch.equal(given[:, 1:], ids()[:, 1:])
    assert set(given[:, 0].tolist()) <= set(ids()[:, 1:].flatten().tolist())
    assert torch.equal(given, inputs(small_lm(), ids(), "replace", seed=3)[0])


def test_means_against_a_loop() -> None:
    lm = small_lm("llama")
    seen: list[Tensor] = []
    hook = lm.model.model.layers[2].self_attn.v_proj.register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        states = lm.model(ids(), output_hidden_states=True).hidden_states
    hook.remove()
    means = ordinary_means(lm, ids())
    torch.testing.assert_close(means.residual[2], states[2][:, 4:].mean((0, 1)), atol=1e-5, rtol=1e-4)
    values = seen[0].unflatten(-1, (2, 8))[:, 4:].mean((0, 1))  # two key-value heads
    torch.testing.assert_close(means.value[2], values.repeat_interleave(2, 0), atol=1e-5, rtol=1e-4)


def test_losses_against_cross_entropy_on_all_logits() -> None:
    lm = small_lm("gemma2-softcap")
    with torch.no_grad():
        logits = lm.model(ids()).logits
    found = predict(lm, ids(), [2, 5, 11], batch_tokens=4)
    for column, query in enumerate((2, 5, 11)):
        expected = F.cross_entropy(logits[:, query], ids()[:, query + 1], reduction="none")
        torch.testing.assert_close(found.loss[:, column], expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(found.top[:, column], logits[:, query].topk(5).indices)


def test_agreement_against_a_loop() -> None:
    a = torch.stack([torch.randperm(9)[:5] for _ in range(12)]).view(3, 4, 5)
    b = torch.stack([torch.randperm(9)[:5] for _ in range(12)]).view(3, 4, 5)
    b[0, 0] = a[0, 0]
    top1, top5 = agreement(a, b)
    for text in range(3):
        same = [a[text, q, 0].item() == b[text, q, 0].item() for q in range(4)]
        shared = [len(set(a[text, q].tolist()) & set(b[text, q].tolist())) / 5 for q in range(4)]
        assert top1[text].item() == pytest.approx(sum(same) / 4)
        assert top5[text].item() == pytest.approx(sum(shared) / 4)


def test_attention_of_query_0_counts_as_one_in_every_arm() -> None:
    found = first_attention(torch.full((2, 3, 4, 10), 0.25), 5)
    assert found.shape == (3, 2, 4)
    torch.testing.assert_close(found, torch.full((3, 2, 4), (1 + 4 * 0.25) / 5))


def test_clear_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = small_lm(bos=False)
    with pytest.raises(FirstTokenError, match="no BOS token"):
        inputs(lm, ids(), "add_bos")
    with pytest.raises(FirstTokenError, match="from the second token on"):
        run_arm(lm, ids(), [0, 1], "delete")
    with pytest.raises(FirstTokenError, match="needs the means"):
        run_arm(lm, ids(), [1], "mean_value")
    with pytest.raises(FirstTokenError, match="needs a token after each query"):
        predict(lm, ids(), [LENGTH - 1])
    with pytest.raises(FirstTokenError, match="no head 7; this layer has heads 0 to 3"):
        only_key(call(), heads=[7])

    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(type(lm.model), "forward", full)
    with pytest.raises(FirstTokenError, match="Out of memory: lower batch_tokens"):
        run_arm(lm, ids(), [1, 2], "delete")
