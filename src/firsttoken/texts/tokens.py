"""From text to tokens: nothing is padded, and the prefix that the policy puts first is among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.models import BosPolicy, LanguageModel


def encode(lm: LanguageModel, texts: Sequence[str], length: int, bos: BosPolicy = "auto") -> torch.Tensor:
    """The first `length` tokens of each text, the BOS token (where the policy puts one) among them.

    Returns:
        ids  # (text, length), int64, on the CPU

    Raises:
        FirstTokenError: a text is shorter than `length`; nothing is padded, because padding changes the number of
            queries that a mean is over.
    """
    if length < 2:
        raise FirstTokenError(f"length must be at least 2 tokens, not {length}.")
    prefix = lm.prefix(bos)
    rows = []
    for number, text in enumerate(texts):
        ids = prefix + _tokens(lm, text, length)
        if len(ids) < length:
            raise FirstTokenError(
                f"Text {number + 1} of {len(texts)} ({text[:30]!r}...) has {len(ids)} tokens for {lm.name}, fewer "
                f"than length={length}; give longer texts or lower `length` to {len(ids)} or less."
            )
        rows.append(ids[:length])
    return torch.tensor(rows, dtype=torch.int64)


def _tokens(lm: LanguageModel, text: str, length: int) -> list[int]:
    # Sixteen characters a token is more than any tokenizer reaches on prose; encoding all of a long document to
    # use its first tokens would be slow.
    return lm.tokenizer(text[: 16 * length + 64], add_special_tokens=False).input_ids


def windows(lm: LanguageModel, text: str, length: int, count: int, bos: BosPolicy = "auto") -> torch.Tensor:
    """`count` windows of `length` tokens from one long text, side by side, each with its own BOS token.

    Returns:
        ids  # (window, length), int64

    Raises:
        FirstTokenError: the text is too short for that many windows.
    """
    prefix = lm.prefix(bos)
    each = length - len(prefix)
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids
    if len(ids) < count * each:
        raise FirstTokenError(
            f"The text has {len(ids)} tokens for {lm.name}, fewer than {count} windows of {length}; lower `length` "
            "or the number of windows, or give a longer text."
        )
    return torch.tensor([prefix + ids[i * each : (i + 1) * each] for i in range(count)], dtype=torch.int64)
