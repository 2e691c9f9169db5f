"""How documents become training windows: where they are cut, which tokens see each other, and where BOS stands.

The paper's packing experiment turns on two choices. `masking`: may a token attend to the documents before its own
in the window? `bos`: is there a BOS token nowhere, before each document, or fixed as the first token of every window
and visible to all of it?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.corpora import BOS, EOS, Corpus

Masking = Literal["causal", "intra_document"]
BosInTraining = Literal["never", "documents", "fixed"]
LossOn = Literal["all", "second_half"]
IGNORED = -100  # the label of a token whose prediction bears no loss, as transformers and torch have it
_NOISE = 1  # beside seed and number of a window, so that its noise shares no random bits with the order of documents
FIXED = -1  # the document number of a fixed BOS, which belongs to none and is seen by all


@dataclass(frozen=True)
class Packing:
    """Windows of `length` tokens.

    `reset_positions` counts positions from the start of each document in the window instead of from that of the window
    (a fixed BOS keeps position 0, and the documents then count from 1). `loss` says which positions are trained to
    predict their next token: all, or those from the middle of the window on (arXiv 2603.05498, section 4.3.3).
    """

    length: int = 256
    masking: Masking = "causal"
    bos: BosInTraining = "never"
    eos: bool = True
    reset_positions: bool = False
    loss: LossOn = "all"

    def __post_init__(self) -> None:
        if self.masking not in ("causal", "intra_document"):
            raise FirstTokenError(f"masking is causal or intra_document, not {self.masking!r}.")
        if self.bos not in ("never", "documents", "fixed"):
            raise FirstTokenError(f"bos in training is never, documents or fixed, not {self.bos!r}.")
        if self.loss not in ("all", "second_half"):
            raise FirstTokenError(f"loss in training is on all or second_half, not {self.loss!r}.")
        if self.length < 8:
            raise FirstTokenError(f"A window has 8 tokens or more, not {self.length}.")


def may_attend(documents: Tensor, masking: Masking) -> Tensor:
    """Which key each query may see.

    Args:
        documents: (window, token), the number of the document that each token belongs to; `FIXED` for a fixed BOS.

    Returns:
        (window, query, key), bool
    """
    length = documents.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    if masking == "causal":
        return causal.expand(*documents.shape[:-1], length, length)
    same = documents[..., :, None] == documents[..., None, :]
    return causal & (same | (documents == FIXED)[..., None, :])


def positions(documents: Tensor) -> Tensor:
    """Positions that begin again with each document, (window, token); after a fixed BOS they begin with 1."""
    index = torch.arange(documents.shape[-1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[..., 1:] = documents[..., 1:] != documents[..., :-1]
    since_start = index - torch.where(starts, index, 0).cummax(-1).values
    return since_start + ((documents[..., :1] == FIXED) & (documents != FIXED)).long()


@dataclass(frozen=True)
class Window:
    """One training example."""

    ids: NDArray[np.int64]  # (token,)
    documents: NDArray[np.int64]  # (token,), counted from 0 in each window; FIXED for a fixed BOS
    read: NDArray[np.int64] | None = None  # (token,), what the model reads in place of `ids`, which it has to predict


class Windows(Dataset[Window]):
    """`count` windows cut side by side from a stream of shuffled documents, begun anew when all have been read."""

    def __init__(
        self, corpus: Corpus, packing: Packing, count: int, seed: int = 0, least: int = 0, replaced: float = 0.0
    ) -> None:
        """
        Args:
            seed: of the order of documents, another one in each round, and of the tokens that are replaced.
            least: leave out documents of fewer tokens.
            replaced: the probability with which a token, BOS and EOS aside, is read as a random one.
        """
        self.corpus, self.packing, self.count, self.seed, self.replaced = corpus, packing, count, seed, replaced
        self.numbers = corpus.numbers(held_out=False, least=least)
        if len(self.numbers) == 0:
            raise FirstTokenError(f"{corpus.spec.source} has no document of {least} tokens or more; lower that limit.")
        self.before = [BOS] if packing.bos == "documents" else []
        self.after = [EOS] if packing.eos else []
        lengths = corpus.lengths[self.numbers] + len(self.before) + len(self.after)
        self.round = int(lengths.sum())  # tokens of the stream until every document has been read
        self._order: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def rounds(self) -> float:
        """How often the stream is read."""
        return self.count * self._text_tokens / self.round

    def shared(self, sample: int = 1000) -> float:
        """The share of windows that hold more than one document, of the first ones."""
        first = range(min(sample, self.count))
        return sum(int(self[number].documents.max()) > 0 for number in first) / len(first)

    @property
    def _text_tokens(self) -> int:
        return self.packing.length - (self.packing.bos == "fixed")

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < self.count:
            raise IndexError(index)
        pieces = self._pieces(index * self._text_tokens, self._text_tokens)
        ids, owners = (
            [token for piece in pieces for token in piece],
            np.repeat(range(len(pieces)), list(map(len, pieces))),
        )
        if self.packing.bos == "fixed":
            ids, owners = [BOS, *ids], np.concatenate([[FIXED], owners])
        true = np.array(ids, dtype=np.int64)
        return Window(true, owners.astype(np.int64), self._noisy(true, index) if self.replaced else None)

    def _noisy(self, ids: NDArray[np.int64], index: int) -> NDArray[np.int64]:
        """A window with some tokens replaced, the same ones whenever it is asked for."""
        random = np.random.default_rng([self.seed, index, _NOISE])
        chosen = (random.random(len(ids)) < self.replaced) & (ids != BOS) & (ids != EOS)
        drawn = random.integers(max(BOS, EOS) + 1, self.corpus.spec.vocabulary, len(ids))
        return np.where(chosen, drawn, ids)

    def _pieces(self, start: int, length: int) -> list[list[int]]:
        """The parts of documents in `length` tokens of the stream from `start` on."""
        pieces: list[list[int]] = []
        while length > 0:
            number, place = divmod(start, self.round)
            documents, ends = self._ordered(number)
            which = int(np.searchsorted(ends, place, side="right"))
            document = [*self.before, *self.corpus.document(int(documents[which])).tolist(), *self.after]
            offset = place - (int(ends[which]) - len(document))
            pieces.append(document[offset : offset + length])
            start, length = start + len(pieces[-1]), length - len(pieces[-1])
        return pieces

    def _ordered(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents of a round in their order, and where each ends in its stream."""
        if number not in self._order:
            order = np.random.default_rng([self.seed, number]).permutation(self.numbers)
            lengths = self.corpus.lengths[order] + len(self.before) + len(self.after)
            self._order[number] = order, np.cumsum(lengths)
        return self._order[number]


def labels(ids: Tensor, loss: LossOn) -> Tensor:
    """What the positions of windows (window, token) are trained to predict, `IGNORED` where there is no loss.

    A model shifts them: the label at a place is the goal of the position before it.
    """
    if loss == "all":
        return ids
    goals = ids.clone()
    goals[:, : ids.shape[1] // 2 + 1] = IGNORED
    return goals


def collate(windows: list[Window], packing: Packing) -> dict[str, Any]:
    """A batch as a transformers model takes it."""
    ids = torch.from_numpy(np.stack([window.ids for window in windows]))
    documents = torch.from_numpy(np.stack([window.documents for window in windows]))
    read = torch.from_numpy(np.stack([window.ids if window.read is None else window.read for window in windows]))
    batch: dict[str, Any] = {"input_ids": read, "labels": labels(ids, packing.loss)}
    if packing.reset_positions:
        batch["position_ids"] = positions(documents)
    # Without a mask, transformers would take positions that begin again for packed documents and separate them.
    if packing.masking == "intra_document" or packing.reset_positions:
        batch["attention_mask"] = may_attend(documents, packing.masking)[:, None]
    return batch
