"""How far the change of one token spreads: distances between two runs, at every layer and token.

For an edit that changes token i, with v the residual stream of the run before and v' of the run after it,

    absolute distance  D[l, j] = ||v'_j^(l) - v_j^(l)||_2
    relative distance  D[l, j] / ||v_j^(l)||_2        (unaffected by how large the residual stream is)

Attention is causal, so D[l, j] = 0 for j < i. The *spread* of an edit at layer l is its mean over the later tokens,
j > i, and its *reach* the share of later tokens whose relative distance is above a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.execution.by_layer import through_layers
from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe
from firsttoken.probe.interventions import Hook
from firsttoken.texts.edits import Edit


def distances(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute and relative distance of two residual streams.

    Args:
        before, after: (..., token, width).

    Returns:
        absolute, relative  # (..., token), float32; relative to the norm of `before`
    """
    absolute = (after.float() - before.float()).norm(dim=-1)
    return absolute, absolute / before.float().norm(dim=-1).clamp_min(1e-30)


@dataclass(frozen=True)
class Distances:
    """Distances of many edits in one arm, text tokens only (a BOS token never moves)."""

    absolute: Tensor  # (edit, layer + 1, token), float32, on the CPU
    relative: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows that run at once: texts as they are, then edited copies of them."""

    number: int
    rows: Tensor  # (row, token), the prefix of the arm included
    text_of_row: tuple[int, ...]  # the text of each row
    bases: Tensor  # (edit,), the row that each edit changes a token of
    edits: tuple[int, ...]  # the number of each edit


def edit_batches(
    lm: LanguageModel, ids: Tensor, edits: Sequence[Edit], arm: Arm, batch_tokens: int = 4096
) -> tuple[list[Batch], int]:
    """Every text once for all of its edits, in the same batch as they, and the column where the text begins."""
    batches: list[Batch] = []
    first = 0
    for numbers in _batches(edits, max(2, batch_tokens // ids.shape[1])):
        of_edit = [edits[number].text for number in numbers]
        used = sorted(set(of_edit))
        edited = ids[of_edit].clone()
        for row, number in enumerate(numbers):
            edited[row, edits[number].position] = edits[number].token
        rows, first = start(lm, torch.cat([ids[used], edited]), arm)
        bases = torch.tensor([used.index(text) for text in of_edit])
        batches.append(Batch(len(batches), rows, (*used, *of_edit), bases, tuple(numbers)))
    return batches, first


def run_edits(
    lm: LanguageModel,
    ids: Tensor,
    edits: Sequence[Edit],
    arm: Arm,
    batch_tokens: int = 4096,
    execution: str = "resident",
    change: Callable[[Batch], Hook] | None = None,
    change_name: str = "",
) -> Distances:
    """Run texts as they are and with each edit, and compare.

    Args:
        ids: (text, token), text tokens without BOS.
        batch_tokens: how many tokens run at once; changes no distance beyond rounding.
        execution: see `by_layer.through_layers`.
        change: gives a batch a change to its attention, of which `change_name` says all that it depends on.
    """
    batches, first = edit_batches(lm, ids, edits, arm, batch_tokens)
    task = f"distances of edits {edits}, {arm}{change_name and f', {change_name}'}"
    return in_order(batches, [run_batches(lm, batches, first, change, execution, task)])


def run_batches(
    lm: LanguageModel,
    batches: Sequence[Batch],
    first: int,
    change: Callable[[Batch], Hook] | None = None,
    execution: str = "resident",
    task: str = "",
) -> Tensor:
    """Absolute and relative distances of the edits of some batches, (edit, 2, layer + 1, token), for `in_order`.

    Args:
        first: the column where the text begins.
        task: see `by_layer.through_layers`.
    """

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        base = batches[number].bases.to(v.device)
        v = v[:, first:]
        return torch.stack(distances(v[base], v[len(v) - len(base) :]), dim=1)  # (edit, 2, token)

    by_layer = through_layers(
        lm,
        [batch.rows for batch in batches],
        see,
        hook_of=None if change is None else lambda number: change(batches[number]),
        execution=execution,
        task=task,
    )
    return torch.stack([torch.cat(parts) for parts in by_layer.values()], dim=2)


def in_order(batches: Sequence[Batch], parts: Sequence[Tensor]) -> Distances:
    """What `run_batches` returned for all batches, in one part or several, in the order of the edits."""
    numbers = torch.tensor([number for batch in batches for number in batch.edits])
    distance = torch.cat(list(parts))[numbers.argsort()]
    return Distances(distance[:, 0], distance[:, 1])


def _batches(edits: Sequence[Edit], rows: int) -> Iterator[list[int]]:
    """Numbers of edits, so that a batch with the texts they belong to has at most `rows` rows."""
    batch: list[int] = []
    needed: set[int] = set()
    for number, edit in enumerate(edits):
        if batch and len(batch) + len(needed | {edit.text}) + 1 > rows:
            yield batch
            batch, needed = [], set()
        batch.append(number)
        needed.add(edit.text)
    if batch:
        yield batch


def later_tokens(positions: Tensor, length: int) -> Tensor:
    """True for the tokens after each position: (edit, token)."""
    return torch.arange(length)[None] > positions[:, None]


def spread(distance: Tensor, positions: Tensor) -> Tensor:
    """Mean distance of the tokens after each edit.

    Args:
        distance: (edit, layer, token).
        positions: (edit,), which token each edit changed; at least one token must follow.

    Returns:
        spread  # (edit, layer)
    """
    later = later_tokens(positions, distance.shape[-1])[:, None].to(distance)
    return (distance * later).sum(-1) / later.sum(-1)


def reach(relative: Tensor, positions: Tensor, threshold: float) -> Tensor:
    """Share of later tokens that moved by more than `threshold` of their norm: (edit, layer)."""
    return spread((relative > threshold).float(), positions)
