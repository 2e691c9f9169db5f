"""Losses of single tokens against PyTorch's own cross-entropy, in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from firsttoken.probe.losses import ROWS, surprise, token_losses


@pytest.mark.parametrize("texts_and_queries", [(1, 1), (3, ROWS - 1), (2, 2 * ROWS + 1)])
def test_losses_are_the_cross_entropy_of_every_row(texts_and_queries: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(*texts_and_queries, 97, generator=generator)
    goal = torch.randint(97, texts_and_queries, generator=generator)
    expected = F.cross_entropy(logits.double().movedim(-1, 1), goal, reduction="none")
    for losses in (token_losses(logits, goal), surprise(logits, goal)):
        assert losses.shape == goal.shape
        torch.testing.assert_close(losses.double(), expected, atol=1e-4, rtol=1e-6)
