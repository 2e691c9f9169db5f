"""What one change to the attention does to texts: how far edits spread, loss, attention to key 0, entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.measures.dose import Change, Masses
from firsttoken.measures.spread import Batch, Distances, run_edits, spread
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.losses import predict
from firsttoken.statistics import by_text
from firsttoken.texts.edits import PLACES, Edit

LOSS_ROWS = 8  # texts whose logits exist at once


@dataclass(frozen=True)
class Seen:
    """Texts under one change, without edits, on the CPU."""

    loss: Tensor  # (text,), nats, mean over the predictions of queries 1 to T - 2
    mass: Tensor  # (text,), attention to key 0, mean over layers, heads and queries
    other_mass: Tensor  # (text,), the same to the text's other key
    entropy: Tensor  # (text,), nats


@dataclass(frozen=True)
class Moved:
    """Sums over the edits of each text, (text, 2): spread at later tokens, and the change at the edited token."""

    relative: Tensor  # mean over layers 1 to L of the relative distance
    absolute: Tensor  # the same of the absolute distance
    last_layer: Tensor  # relative distance after layer L alone


@dataclass(frozen=True)
class EditedTexts:
    """Texts of one kind with their edits, and what no control may change in them.

    Attributes:
        ids: (text, token), without BOS.
        first: the column where the text begins.
        protected: (text, key), true at the keys that some edit changes.
        other_keys: (text,), one random key for each text that no edit changes.
    """

    ids: Tensor
    arm: Arm
    first: int
    edits: list[Edit]
    protected: Tensor
    other_keys: Tensor


def prepare(lm: LanguageModel, ids: Tensor, arm: Arm, each: int, seed: int) -> EditedTexts:
    """`each` random tokens put at random positions 1 to T - 2 of every text, and one more key of each.

    Args:
        ids: (text, token), without BOS.
    """
    _, first = start(lm, ids[:1], arm)
    vocabulary = ids.flatten().unique()
    generator = torch.Generator().manual_seed(seed)
    length = first + ids.shape[1]
    edits: list[Edit] = []
    protected = torch.zeros(len(ids), length, dtype=torch.bool)
    other_keys = torch.zeros(len(ids), dtype=torch.long)
    for text, row in enumerate(ids):
        keys = 1 + torch.randperm(length - 2, generator=generator)[: each + 1]
        other_keys[text] = keys[each]
        protected[text, keys[:each]] = True
        for key in keys[:each].sort().values.tolist():
            others = vocabulary[vocabulary != row[key - first]]
            token = others[torch.randint(len(others), (), generator=generator)]
            place = next(name for name, (_, end) in PLACES.items() if key < end * length)
            edits.append(Edit(text, key - first, int(token), "random", place))
    return EditedTexts(ids, arm, first, edits, protected, other_keys)


def move(lm: LanguageModel, edited: EditedTexts, batch_tokens: int, change: Change | None = None) -> Moved:
    """How far the edits of the texts spread under a change."""
    d: Distances = run_edits(lm, edited.ids, edited.edits, edited.arm, batch_tokens, change=change)
    positions = torch.tensor([edit.position for edit in edited.edits])
    of_text = torch.tensor([edit.text for edit in edited.edits])

    def sums(distance: Tensor) -> Tensor:
        """Of (edit, layer, token) without layer 0, where nothing is mixed yet."""
        own = distance[torch.arange(len(positions)), :, positions].mean(1)
        return by_text(torch.stack([spread(distance, positions).mean(1), own], dim=1), of_text)

    return Moved(sums(d.relative[:, 1:]), sums(d.absolute[:, 1:]), sums(d.relative[:, -1:]))


def text_batches(lm: LanguageModel, edited: EditedTexts) -> list[Batch]:
    """The texts as they are, a few at a time."""
    rows, _ = start(lm, edited.ids, edited.arm)
    parts = torch.arange(len(rows)).split(LOSS_ROWS)
    none = torch.tensor([], dtype=torch.long)
    return [Batch(number, rows[part], tuple(part.tolist()), none, ()) for number, part in enumerate(parts)]


def look(lm: LanguageModel, edited: EditedTexts, change: Change | None = None) -> Seen:
    """Loss, masses and entropy of the texts under a change."""
    seen: list[list[Tensor]] = []
    with torch.inference_mode(), explain_out_of_memory("lower `length`"):
        for batch in text_batches(lm, edited):
            others = edited.other_keys[list(batch.text_of_row)]
            keys = torch.stack([torch.zeros_like(others), others], dim=1)
            hook = None if change is None else change(batch)
            queries = torch.arange(1, batch.rows.shape[1] - 1)
            with probe(lm.model, keys=keys, entropy=True, hook=hook) as p:
                loss = predict(lm, batch.rows, queries, batch.rows.numel(), top=1).loss.double().mean(1)
            masses = [layer.double().mean((1, 2)) for layer in p.per_layer().values()]  # (row, key)
            entropy = [layer.double().mean((1, 2)) for layer in p.per_layer("entropy").values()]
            mass = torch.stack(masses).mean(0).cpu()
            seen.append([loss, mass[:, 0], mass[:, 1], torch.stack(entropy).mean(0).cpu()])
    return Seen(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


# A change for given protected keys (text, key) that may hold what an untouched run saw.
Make = Callable[[Tensor, Masses], Change]


@dataclass(frozen=True)
class Ran:
    """Everything that is measured under one change."""

    moved: Moved
    seen: Seen


@dataclass(frozen=True)
class Bench:
    """Texts on which whole arms run."""

    lm: LanguageModel
    edited: EditedTexts
    batch_tokens: int
    untouched: Ran
    of_edits: Masses  # of the untouched model, in the batches of `move`
    of_texts: Masses  # in those of `look`

    @classmethod
    def of(cls, lm: LanguageModel, edited: EditedTexts, batch_tokens: int) -> Bench:
        of_edits, of_texts = Masses(), Masses()
        ran = Ran(move(lm, edited, batch_tokens, of_edits.note), look(lm, edited, of_texts.note))
        return cls(lm, edited, batch_tokens, ran, of_edits, of_texts)

    def run(self, make: Make) -> Ran:
        moved = move(self.lm, self.edited, self.batch_tokens, make(self.edited.protected, self.of_edits))
        return Ran(moved, look(self.lm, self.edited, make(self.edited.protected, self.of_texts)))


@dataclass(frozen=True)
class Scale:
    """Other texts, on which the cost of a change is found."""

    lm: LanguageModel
    edited: EditedTexts
    loss: Tensor  # (text,), of the untouched model
    masses: Masses

    @classmethod
    def of(cls, lm: LanguageModel, edited: EditedTexts) -> Scale:
        masses = Masses()
        return cls(lm, edited, look(lm, edited, masses.note).loss, masses)

    def rise(self, make: Make) -> float:
        """How much the mean loss rises, in nats."""
        seen = look(self.lm, self.edited, make(self.edited.protected, self.masses))
        return float((seen.loss - self.loss).mean())


def pooled(ran: Sequence[Ran]) -> Ran:
    """One arm from several seeds: distances added up, what was seen averaged."""

    def joined(of: Sequence[Any], name: str) -> Tensor:
        return torch.stack([getattr(one, name) for one in of])

    moved, seen = [one.moved for one in ran], [one.seen for one in ran]
    return Ran(
        Moved(*(joined(moved, field.name).sum(0) for field in fields(Moved))),
        Seen(*(joined(seen, field.name).mean(0) for field in fields(Seen))),
    )
