"""What one change to the attention does to texts: how far edits spread, loss, attention to key 0, entropy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.execution.shared_pass import together
from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.measures.dose import Change, Masses
from firsttoken.measures.spread import Batch, edit_batches, in_order, run_batches, spread
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.losses import predict
from firsttoken.statistics import by_text
from firsttoken.texts.edits import PLACES, Edit

Key = TypeVar("Key", bound=Hashable)
Outcome = TypeVar("Outcome")
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


def encoded(lm: LanguageModel, passages: Sequence[str], length: int, bos: BosPolicy) -> tuple[Tensor, Arm]:
    """Texts without BOS, (text, token), of so many tokens with what the policy puts in front, and whether that is
    anything."""
    prefix = lm.prefix(bos)
    return texts.encode(lm, passages, length - len(prefix), "never"), "with_bos" if prefix else "without_bos"


def prepare(lm: LanguageModel, ids: Tensor, arm: Arm, each: int, seed: int) -> EditedTexts:
    """`each` random tokens put at random positions of every text, and one more key of each: from 1 to T - 2, and of
    the text itself where more than one token stands in front of it.

    Args:
        ids: (text, token), without BOS.

    Raises:
        FirstTokenError: the texts have no room for so many.
    """
    _, first = start(lm, ids[:1], arm)
    vocabulary = ids.flatten().unique()
    generator = torch.Generator().manual_seed(seed)
    length = first + ids.shape[1]
    begin = max(1, first)
    if length - 1 - begin <= each:
        raise FirstTokenError(
            f"{lm.name} puts {first} tokens before a text, which leaves {ids.shape[1]}, too few for {each} edits and "
            "an ordinary key; raise length."
        )
    edits: list[Edit] = []
    protected = torch.zeros(len(ids), length, dtype=torch.bool)
    other_keys = torch.zeros(len(ids), dtype=torch.long)
    for text, row in enumerate(ids):
        keys = begin + torch.randperm(length - 1 - begin, generator=generator)[: each + 1]
        other_keys[text] = keys[each]
        protected[text, keys[:each]] = True
        for key in keys[:each].sort().values.tolist():
            others = vocabulary[vocabulary != row[key - first]]
            token = others[torch.randint(len(others), (), generator=generator)]
            place = next(name for name, (_, end) in PLACES.items() if key < end * length)
            edits.append(Edit(text, key - first, int(token), "random", place))
    return EditedTexts(ids, arm, first, edits, protected, other_keys)


# -- jobs: what is run, apart from how -----------------------------------------------------------------------


@dataclass(frozen=True)
class Job(Generic[Outcome]):
    """Something measured in parts that need nothing of each other, each one forward pass."""

    parts: Sequence[Callable[[LanguageModel], Tensor]]
    join: Callable[[Sequence[Tensor]], Outcome]


def done(lm: LanguageModel, jobs: Mapping[Key, Job[Outcome]], execution: str = "resident") -> dict[Key, Outcome]:
    """What each job measures. Streamed, the disk is read once for all parts of all of them."""
    parts = {(name, number): part for name, job in jobs.items() for number, part in enumerate(job.parts)}
    ran = together(lm, parts, execution)
    return {name: job.join([ran[name, number] for number in range(len(job.parts))]) for name, job in jobs.items()}


def moving(lm: LanguageModel, edited: EditedTexts, batch_tokens: int, change: Change | None = None) -> Job[Moved]:
    """How far the edits of the texts spread under a change."""
    batches, first = edit_batches(lm, edited.ids, edited.edits, edited.arm, batch_tokens)
    positions = torch.tensor([edit.position for edit in edited.edits])
    of_text = torch.tensor([edit.text for edit in edited.edits])

    def sums(distance: Tensor) -> Tensor:
        """Of (edit, layer, token) without layer 0, where nothing is mixed yet."""
        own = distance[torch.arange(len(positions)), :, positions].mean(1)
        return by_text(torch.stack([spread(distance, positions).mean(1), own], dim=1), of_text)

    def join(parts: Sequence[Tensor]) -> Moved:
        d = in_order(batches, parts)
        return Moved(sums(d.relative[:, 1:]), sums(d.absolute[:, 1:]), sums(d.relative[:, -1:]))

    return Job([partial(run_batches, batches=[batch], first=first, change=change) for batch in batches], join)


def text_batches(lm: LanguageModel, edited: EditedTexts) -> list[Batch]:
    """The texts as they are, a few at a time."""
    rows, _ = start(lm, edited.ids, edited.arm)
    parts = torch.arange(len(rows)).split(LOSS_ROWS)
    none = torch.tensor([], dtype=torch.long)
    return [Batch(number, rows[part], tuple(part.tolist()), none, ()) for number, part in enumerate(parts)]


def looking(lm: LanguageModel, edited: EditedTexts, change: Change | None = None) -> Job[Seen]:
    """Loss, masses and entropy of the texts under a change."""
    parts = [
        partial(_look, batch=batch, others=edited.other_keys[list(batch.text_of_row)], change=change)
        for batch in text_batches(lm, edited)
    ]
    return Job(parts, lambda seen: Seen(*torch.cat(list(seen), dim=1)))


def _look(lm: LanguageModel, batch: Batch, others: Tensor, change: Change | None) -> Tensor:
    """The fields of `Seen` for one batch, (4, text)."""
    keys = torch.stack([torch.zeros_like(others), others], dim=1)
    hook = None if change is None else change(batch)
    queries = torch.arange(1, batch.rows.shape[1] - 1)
    with torch.inference_mode(), explain_out_of_memory("lower `length`"):
        with probe(lm.model, keys=keys, entropy=True, hook=hook) as p:
            loss = predict(lm, batch.rows, queries, batch.rows.numel(), top=1).loss.double().mean(1)
        masses = [layer.double().mean((1, 2)).cpu() for layer in p.per_layer().values()]  # (row, key)
        entropy = [layer.double().mean((1, 2)).cpu() for layer in p.per_layer("entropy").values()]
        mass = torch.stack(masses).mean(0)
        return torch.stack([loss, mass[:, 0], mass[:, 1], torch.stack(entropy).mean(0)])


# -- arms ---------------------------------------------------------------------------------------------------

# A change for given protected keys (text, key) that may hold what an untouched run saw.
Make = Callable[[Tensor, Masses], Change]


def untouched(protected: Tensor, masses: Masses) -> Change:
    """No change; notes the masses that the controls on the same texts hold."""
    return masses.note


@dataclass(frozen=True)
class Ran:
    """Everything that is measured under one change."""

    moved: Moved
    seen: Seen


@dataclass(frozen=True)
class Bench:
    """Texts on which whole arms run. `untouched` runs in an earlier call than any arm that holds masses."""

    lm: LanguageModel
    edited: EditedTexts
    batch_tokens: int
    execution: str = "resident"
    of_edits: Masses = field(default_factory=Masses)  # of the untouched model, in the batches of `moving`
    of_texts: Masses = field(default_factory=Masses)  # in those of `looking`

    def run(self, arms: Mapping[Key, Make]) -> dict[Key, Ran]:
        """All that is measured in each arm; streamed, in one reading of the disk."""
        return done(self.lm, {name: self._arm(make) for name, make in arms.items()}, self.execution)

    def _arm(self, make: Make) -> Job[Ran]:
        moved = moving(self.lm, self.edited, self.batch_tokens, make(self.edited.protected, self.of_edits))
        seen = looking(self.lm, self.edited, make(self.edited.protected, self.of_texts))
        first = len(moved.parts)
        return Job([*moved.parts, *seen.parts], lambda parts: Ran(moved.join(parts[:first]), seen.join(parts[first:])))


@dataclass(frozen=True)
class Scale:
    """Other texts, on which the cost of a change is found."""

    lm: LanguageModel
    edited: EditedTexts
    execution: str = "resident"
    masses: Masses = field(default_factory=Masses)

    def losses(self, arms: Mapping[Key, Make]) -> dict[Key, Tensor]:
        """Loss of each text in each arm, (text,), `untouched` first as in `Bench`; streamed, in one reading."""
        jobs = {
            name: looking(self.lm, self.edited, make(self.edited.protected, self.masses))
            for name, make in arms.items()
        }
        return {name: seen.loss for name, seen in done(self.lm, jobs, self.execution).items()}


def pooled(ran: Sequence[Ran]) -> Ran:
    """One arm from several seeds: distances added up, what was seen averaged."""

    def joined(of: Sequence[Any], name: str) -> Tensor:
        return torch.stack([getattr(one, name) for one in of])

    moved, seen = [one.moved for one in ran], [one.seen for one in ran]
    return Ran(
        Moved(*(joined(moved, each.name).sum(0) for each in fields(Moved))),
        Seen(*(joined(seen, each.name).mean(0) for each in fields(Seen))),
    )
