"""Heavy hitters as a mask, against a cache of one head from which tokens are thrown away one by one."""

from __future__ import annotations

import math

import pytest
import torch

from firsttoken.measures import cache_masks
from firsttoken.measures.cache_masks import Policy
from firsttoken.probe.attention import AttentionCall, plain_scores


def test_heavy_hitters_are_kept_and_nothing_comes_back() -> None:
    """One head, with three keys planted that draw attention."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 96, 8, generator=generator).unbind(0)
    query[..., 0] = 3.0
    key[..., 0] = 0.0
    key[0, 0, [5, 17, 40], 0] = 4.0
    call = AttentionCall(query, key, key, 0.5, None, causal=True)
    masked = cache_masks._heavy(call, Policy(80, "heavy"))
    assert masked.mask is not None
    seen = masked.mask[0, 0]
    assert not seen.triu(1).any()
    assert (seen.sum(1) <= 80).all()
    for j in range(96):
        assert seen[j, max(0, j - 39) : j + 1].all(), "the newest 40"
    assert seen[-1, [5, 17, 40]].all()
    gone = (~seen[-1]).nonzero()[:, 0]
    assert len(gone) >= 16
    for key_place in range(96):
        held = seen[key_place:, key_place].int()
        assert (held.diff() <= 0).all(), "what has left never comes back"
    weights = plain_scores(masked).softmax(-1)[0, 0]
    heavy = weights[:, [5, 17, 40]].sum(0)
    assert heavy.min() > weights[:, gone].sum(0).max()


def heavy_cache(scores: torch.Tensor, window: int, every: int, sink: float) -> torch.Tensor:
    """What each query finds in the cache of one head of keys, (query, key), bool: tokens come and are thrown away one
    by one.

    After `every` tokens half of the cache is given away anew: to those of its tokens that got most attention, out of
    the ones that had a place already and the ones that will not be among the newest when places are given next.

    Args:
        scores: (query head, query, key), of the query heads that share the cache.
        sink: score of a virtual key that takes its share of each query's attention; -inf for none.
    """
    newest = window // 2
    seen = torch.zeros(scores.shape[1:], dtype=torch.bool)
    cache: list[int] = []
    placed: set[int] = set()
    got: dict[int, float] = {}
    for token in range(scores.shape[1]):
        cache = [held for held in cache if held in placed or held > token - newest] + [token]
        seen[token, cache] = True
        for of_head in scores:
            weights = torch.tensor([*of_head[token, cache], sink]).double().softmax(0).tolist()
            for held, weight in zip(cache, weights, strict=False):
                got[held] = got.get(held, 0.0) + weight
        if (token + 1) % every == 0:
            asking = [held for held in cache if held in placed or held <= token + every - newest]
            placed = set(sorted(asking, key=lambda held: got[held], reverse=True)[: window - newest])
    return seen


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("sink", [-torch.inf, 2.0])
@pytest.mark.parametrize(("window", "every"), [(2, 1), (16, 8), (17, 8), (40, 20), (64, 32), (80, 32), (128, 32)])
def test_heavy_hitters_are_those_of_a_cache_that_throws_tokens_away(
    window: int, every: int, sink: float, shared: int
) -> None:
    length, heads = 272, 2 * shared
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        query, key = torch.randn(2, 1, heads, length, 8, generator=generator).unbind(0)
        key = key[:, ::shared].repeat_interleave(shared, dim=1)
        virtual = None if math.isinf(sink) else torch.full((1, heads, 1, 1), sink)
        call = AttentionCall(query, key, key, 0.5, None, causal=True, sink_logits=virtual)
        mask = cache_masks._heavy(call, Policy(window, "heavy"), shared).mask
        assert mask is not None
        assert mask.shape == (1, heads, length, length)
        for head in range(heads):
            seen = mask[0, head]
            assert seen.sum(1).max() <= window
            for place in range(length):
                assert (seen[place:, place].int().diff() <= 0).all(), "what has left never comes back"
            group = slice(head // shared * shared, (head // shared + 1) * shared)
            expected = heavy_cache(0.5 * query[0, group] @ key[0, group].mT, window, every, sink)
            assert torch.equal(seen, expected), (seed, head)
            assert seen[-1, :-window].any(), "some tokens stay for long"
