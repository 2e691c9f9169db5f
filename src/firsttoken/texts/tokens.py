"""From text to tokens: nothing is padded, and the prefix that the policy puts first is among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.models import BosPolicy, LanguageModel


def encode(lm: LanguageModel, texts: Sequence[str], length: int, bos: BosPolicy = "auto") -> torch.Tensor:
    """The first `length` tokens of each text, what the policy puts first (see `with_prefix`) among them.

    Returns:
        ids  # (text, length), int64, on the CPU

    Raises:
        FirstTokenError: a text is shorter than `length` (nothing is padded, because padding changes the number of
            queries that a mean is over), or the model has fewer positions or embeddings than that takes.
    """
    if length < 2:
        raise FirstTokenError(f"length must be at least 2 tokens, not {length}.")
    _check_length(lm, length)
    rows = []
    for number, text in enumerate(texts):
        ids = with_prefix(lm, _tokens(lm, text, length), bos)
        if len(ids) < length:
            raise FirstTokenError(
                f"Text {number + 1} of {len(texts)} ({text[:30]!r}...) has {len(ids)} tokens for {lm.name}, fewer "
                f"than the {length} that are read; give longer texts, or lower their number (`length`, or "
                f"`text_tokens`) to {len(ids)} or less."
            )
        rows.append(ids[:length])
    return _known(lm, torch.tensor(rows, dtype=torch.int64))


def with_prefix(lm: LanguageModel, ids: list[int], bos: BosPolicy) -> list[int]:
    """Tokens of a text behind what the policy puts first.

    Where the text begins with (a part of) the prefix itself, as saved chat prompts do, that part is not put there
    twice: a doubled BOS token is another input than any model was trained on. `always` asks for it in any case.
    """
    prefix = lm.prefix(bos)
    return (prefix if bos == "always" else prefix[: len(prefix) - _overlap(prefix, ids)]) + ids


def _overlap(prefix: list[int], ids: list[int]) -> int:
    """How many tokens at the end of `prefix` the text begins with."""
    return max(k for k in range(len(prefix) + 1) if prefix[len(prefix) - k :] == ids[:k])


def first_tokens(lm: LanguageModel, ids: torch.Tensor) -> list[str]:
    """The first three tokens that were really read, as the tokenizer spells them, for records.

    Args:
        ids: (text, token) or (token,); of several texts the first answers.
    """
    row = ids if ids.dim() == 1 else ids[0]
    return [str(token) for token in lm.tokenizer.convert_ids_to_tokens(row[:3].tolist())]


def opening(lm: LanguageModel, text: str, bos: BosPolicy) -> torch.Tensor:
    """The first three tokens that are read of a text, or as many as it has, (token,)."""
    return _known(lm, torch.tensor(with_prefix(lm, _tokens(lm, text, 3), bos)[:3]))


def _check_length(lm: LanguageModel, length: int) -> None:
    longest = lm.longest_input
    if longest is not None and length > longest:
        raise FirstTokenError(
            f"{lm.name} has {longest} positions and cannot read {length} tokens; lower `length` to {longest} or less."
        )


def _known(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    """`ids`, if the model has an embedding for each."""
    size = getattr(lm.config.get_text_config(), "vocab_size", None)
    if isinstance(size, int) and ids.numel() and int(ids.max()) >= size:
        raise FirstTokenError(
            f"The tokenizer of {lm.name} gives token {int(ids.max())}, but the model has {size} embeddings; the two "
            "do not belong together: take the tokenizer files from where the weights came from."
        )
    return ids


def _tokens(lm: LanguageModel, text: str, length: int) -> list[int]:
    # Sixteen characters a token is more than any tokenizer reaches on prose; encoding all of a long document to
    # use its first tokens would be slow. A row of dashes may be one token, or end in other tokens where it is cut.
    characters = 16 * length + 64
    ids: list[int] = lm.tokenizer(text[:characters], add_special_tokens=False).input_ids
    while characters < len(text):
        characters *= 2
        shorter, ids = ids, lm.tokenizer(text[:characters], add_special_tokens=False).input_ids
        if len(shorter) >= length and shorter[:length] == ids[:length]:
            break
    return ids


def windows(lm: LanguageModel, text: str, length: int, count: int, bos: BosPolicy = "auto") -> torch.Tensor:
    """`count` windows of `length` tokens from one long text, side by side, each with its own BOS token.

    Returns:
        ids  # (window, length), int64

    Raises:
        FirstTokenError: the text is too short for that many windows.
    """
    _check_length(lm, length)
    prefix = lm.prefix(bos)
    each = length - len(prefix)
    if each < 1:
        raise FirstTokenError(f"length must be more than the {len(prefix)} tokens that stand before every window.")
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids
    ids = ids[0 if bos == "always" else _overlap(prefix, ids) :]
    if len(ids) < count * each:
        raise FirstTokenError(
            f"The text has {len(ids)} tokens for {lm.name}, fewer than {count} windows of {length}; lower `length` "
            "or the number of windows, or give a longer text."
        )
    rows = [prefix + ids[i * each : (i + 1) * each] for i in range(count)]
    return _known(lm, torch.tensor(rows, dtype=torch.int64))
