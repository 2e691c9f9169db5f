"""Small changes of a text, each after its first third and before its last tokens, which stay what they are."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.texts.edits import token_synonyms

KINDS: dict[str, str] = {
    "typo": "two letters of a word exchanged",
    "swap": "two neighbouring tokens exchanged",
    "synonym": "a word replaced by a near-synonym",
    "noise": "noise added to all embeddings but the first",
}
NOISE = 0.1  # standard deviation, relative to the root mean square of a token's embedding
TAIL = 20  # tokens at the end of a text whose predictions are compared

Pair = tuple[Tensor, Tensor]  # a text before and after a change, (token,) each; the last TAIL tokens are the same
Pairs = dict[str, list[Pair | None]]  # by kind, one for each text; None where it allows none


def changed(lm: LanguageModel, row: Tensor, kind: str, draw: random.Random) -> Pair | None:
    """A text and the same with one small change between its first third and its last tokens; None if it allows none.

    Args:
        row: (token,), text tokens without BOS.
    """
    places = list(range(len(row) // 3, len(row) - TAIL - 2))
    draw.shuffle(places)
    if kind == "noise":
        return row, row
    if kind == "swap":
        for place in places:
            if row[place] != row[place + 1]:
                other = row.clone()
                other[place], other[place + 1] = row[place + 1], row[place]
                return row, other
    elif kind == "synonym":
        known = token_synonyms(lm)
        for place in places:
            if int(row[place]) in known:
                other = row.clone()
                other[place] = known[int(row[place])]
                return row, other
    elif kind == "typo":
        return _typo(lm, row, draw)
    else:
        raise FirstTokenError(f"There is no change {kind!r}; there are {', '.join(KINDS)}.")
    return None


def _typo(lm: LanguageModel, row: Tensor, draw: random.Random) -> Pair | None:
    text = lm.tokenizer.decode(row.tolist())
    words = [m for m in re.finditer(r"[a-z]{5,}", text) if len(text) // 3 < m.start() < 0.6 * len(text)]
    draw.shuffle(words)
    for word in words:
        place = word.start() + draw.randrange(1, len(word.group()) - 2)
        if text[place] == text[place + 1]:
            continue
        wrong = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        before, after = (torch.tensor(lm.tokenizer(t, add_special_tokens=False).input_ids) for t in (text, wrong))
        if torch.equal(before[-TAIL:], after[-TAIL:]):
            return before, after
    return None


@contextmanager
def noisy_embeddings(lm: LanguageModel, seed: int) -> Iterator[None]:
    """Inside the block every embedding but the first of a text has noise of relative size NOISE."""

    def after(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(output.shape[1:], generator=generator).to(output)
        size = output.float().pow(2).mean(-1, keepdim=True).sqrt().to(output)
        size[:, 0] = 0
        return output + NOISE * size * drawn

    handle = lm.model.get_input_embeddings().register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def of_every_kind(lm: LanguageModel, ids: Tensor, seed: int) -> Pairs:
    """One change of each kind for every text (text, token).

    Raises:
        FirstTokenError: fewer than two texts allow a change of some kind.
    """
    pairs = {
        kind: [changed(lm, row, kind, random.Random(seed + number)) for number, row in enumerate(ids)]
        for kind in KINDS
    }
    for kind, of_texts in pairs.items():
        count = sum(pair is not None for pair in of_texts)
        if count < 2:
            raise FirstTokenError(f"Only {count} texts allow a change of kind {kind}; give more passages.")
    return pairs


def touched(pair: Pair) -> slice:
    """The tokens that differ, of the longer text, counted from the end: a slice of negative numbers."""
    before, after = pair
    shorter, longer = sorted((len(before), len(after)))
    same = (before[len(before) - shorter :] == after[len(after) - shorter :]).flip(0)
    at_end = int(same.long().cumprod(0).sum())
    at_start = int((before[:shorter] == after[:shorter]).long().cumprod(0).sum())
    return slice(min(at_start, shorter - at_end) - longer, -at_end)
