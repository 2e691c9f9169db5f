"""A few measurements on small random models, saved to a folder, which may run in memory, streamed or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fake import LETTERS, Letters
from firsttoken import models
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.interventions import forbid_key, in_every_layer
from firsttoken.probe.losses import logits_at, predict
from tiny import tiny_model

TEXTS, LENGTH = 5, 17
QUERIES = torch.tensor([3, 7, 15])


def ids() -> Tensor:
    return torch.randint(3, 97, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


def saved(name: str, folder: Path) -> LanguageModel:
    tiny_model(name).save_pretrained(folder, max_shard_size="20KB")
    lm = models.load(str(folder), device="cpu")
    vars(lm)["tokenizer"] = Letters()
    return lm


def logits(lm: LanguageModel) -> Tensor:
    with torch.no_grad():
        return logits_at(lm, ids(), QUERIES)


def seen(lm: LanguageModel) -> Tensor:
    with probe(lm.model, keys=[0, 4]) as p:
        predict(lm, ids(), QUERIES)
    return p.attention_per_key


def without_first_key(lm: LanguageModel, rows: int) -> Tensor:
    """In as many passes as it takes to read `rows` texts at once."""
    losses = []
    for batch in ids().split(rows):
        with probe(lm.model, hook=in_every_layer(forbid_key)):
            losses.append(predict(lm, batch, QUERIES).loss)
    return torch.cat(losses)


MEASURES: dict[str, Callable[[LanguageModel], Tensor]] = {
    "logits": logits,
    "attention": seen,
    "forbidden, one pass": partial(without_first_key, rows=TEXTS),
    "forbidden, three passes": partial(without_first_key, rows=2),
    "no pass": lambda lm: torch.ones(1),
}


def letters_in(folder: Path) -> str:
    """A folder of texts that the tokenizer of letters can read."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(10):
        words = torch.randint(3, 97, (60,), generator=generator).tolist()
        (folder / f"{number}.txt").write_text("".join(LETTERS[word] for word in words))
    return str(folder)
