"""Kinds of sinks against plain loops, and two heads made by hand: one that adds nothing, one that broadcasts."""

from __future__ import annotations

import pytest
import torch

from fake import fake_lm
from firsttoken.measures import sink_kinds
from firsttoken.models.anatomy import attention_blocks, head_outputs
from tiny import tiny_model

DIM, WIDTH, TOKENS = 4, 12, 40


def by_hand(value_of_sink: torch.Tensor, resting: float) -> sink_kinds.Kinds:
    """One head that gives the first token `resting` of its attention at every query, the rest to its own token."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, DIM, WIDTH, generator=generator)
    value = torch.randn(1, TOKENS, DIM, generator=generator)
    value[0, 0] = value_of_sink
    first = torch.full((1, TOKENS), resting)
    first[0, 0] = 1.0
    mixed = first[0, :, None] * value[0, 0] + (1 - first[0, :, None]) * value[0]
    one = sink_kinds.of_layer(first, value, mixed, sink_kinds.same_norms(weight))
    rests = sink_kinds.Rests(*(getattr(one, name)[None, None] for name in sink_kinds.Rests.__dataclass_fields__))
    # The same without any factorisation.
    added = mixed[1:] @ weight[0]
    singular = torch.linalg.svdvals(added)
    seen = sink_kinds.kinds(rests, torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]))
    norms = (value[0] @ weight[0]).norm(dim=-1)
    torch.testing.assert_close(seen.value_ratio[0], norms[0] / norms[1:].mean())
    torch.testing.assert_close(seen.stable_rank[0], (singular**2).sum() / singular[0] ** 2)
    torch.testing.assert_close(seen.sink_share[0], (TOKENS - 1) * (resting * norms[0]) ** 2 / (added**2).sum())
    return seen


def test_a_head_that_adds_nothing_and_one_that_broadcasts() -> None:
    quiet = by_hand(torch.zeros(DIM), 0.9)
    assert float(quiet.value_ratio) == 0
    assert float(quiet.sink_share) == 0
    assert float(quiet.stable_rank) > 1.5
    loud = by_hand(torch.full((DIM,), 3.0), 0.9)
    assert float(loud.value_ratio) > 1
    assert float(loud.stable_rank) == pytest.approx(1, abs=0.01)
    assert float(loud.sink_share) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_observed_against_eager_attention(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_kinds, "RESTING", 0.06)  # random models rest on nothing
    lm = fake_lm(tiny_model(architecture))
    ids = torch.randint(3, 97, (3, 24), generator=torch.Generator().manual_seed(1))
    rests = sink_kinds.observe(lm, ids)
    blocks = attention_blocks(lm.model)
    inputs: dict[int, torch.Tensor] = {}
    for block in blocks:
        block.output.register_forward_hook(lambda m, given, out, index=block.index: inputs.update({index: given[0]}))
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        attn = lm.model(ids, output_attentions=True).attentions
    for number, block in enumerate(blocks):
        first = attn[number][..., 1:, 0]  # (text, head, query)
        torch.testing.assert_close(rests.attention[:, number], first.mean(-1), atol=1e-5, rtol=1e-4)
        assert torch.equal(rests.queries[:, number], (first >= 0.06).sum(-1).float())
        plain = block if block.post_norm is None else type(block)(**{**vars(block), "post_norm": None})
        added = head_outputs(plain, inputs[block.index], inputs[block.index], first.shape[1])[:, 1:]
        for text in range(len(ids)):
            for head in range(first.shape[1]):
                rows = added[text, :, head][first[text, head] >= 0.06]
                gram = rests.gram[text, number, head]
                torch.testing.assert_close(gram.trace(), (rows**2).sum(), atol=1e-6, rtol=1e-3)
                top = torch.linalg.matrix_norm(rows, 2) ** 2 if len(rows) else torch.tensor(0.0)
                torch.testing.assert_close(torch.linalg.eigvalsh(gram)[-1], top, atol=1e-6, rtol=1e-3)


def test_texts_that_are_drawn_twice_count_twice() -> None:
    lm = fake_lm(tiny_model("llama"))
    ids = torch.randint(3, 97, (3, 24), generator=torch.Generator().manual_seed(1))
    rests = sink_kinds.observe(lm, ids)
    every = torch.ones(rests.attention.shape[1:], dtype=torch.bool)
    twice = sink_kinds.observe(lm, ids[[0, 0, 2]])
    drawn = sink_kinds.kinds(rests, every, torch.tensor([2, 0, 0])).value_ratio
    torch.testing.assert_close(drawn, sink_kinds.kinds(twice, every, torch.arange(3)).value_ratio)


def test_the_largest_eigenvalue_is_that_of_all_of_them() -> None:
    rows = torch.randn(7, 30, 16, generator=torch.Generator().manual_seed(0))
    gram = rows.transpose(1, 2) @ rows
    torch.testing.assert_close(
        sink_kinds.largest_eigenvalue(gram), torch.linalg.eigvalsh(gram)[..., -1], atol=0, rtol=2e-3
    )
    assert float(sink_kinds.largest_eigenvalue(torch.zeros(1, 4, 4))) == 0
