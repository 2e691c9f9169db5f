"""Inputs that pull attention off the first token: repeated tokens, another token in front, BOS inside the text, and a
few tokens found by search. What a server can do about them is at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe, probe
from firsttoken.probe.forward import run_decoder
from firsttoken.probe.losses import logits_at, token_losses
from firsttoken.progress import tracked

REPEATS = 32
PIN = "Here is a text.\n"
SEARCH_TEXTS = 4  # the last of the project's passages, which no measurement uses with its default parameters
MEANING: dict[str, str] = {
    "repeated": f"one word {REPEATS} times before the text",
    "repeated, pinned": "the same behind a fixed sentence",
    "other first": "a random token in front of everything",
    "BOS inside": "BOS in the middle of the text",
    "random suffix": "random tokens in the middle of the text",
    "found suffix": "tokens in the middle, searched to lower the sink",
}


@dataclass(frozen=True)
class Reaction:
    """What a model does with the second half of each text."""

    mass: Tensor  # (text,), mean attention of its tokens to the first token of the whole input
    loss: Tensor  # (text,), nats per token


def react(lm: LanguageModel, rows: Tensor, tail: int) -> Reaction:
    """Attention to position 0 and loss at the last `tail` tokens.

    Args:
        rows: (text, token), without padding.
    """
    queries = torch.arange(rows.shape[1] - tail, rows.shape[1] - 1)
    with torch.inference_mode(), probe(lm.model, keys=[0]) as p:
        logits = logits_at(lm, rows, queries)
    goal = rows[:, queries + 1].to(logits.device)
    return Reaction(_mass(p, tail), token_losses(logits, goal).mean(1).cpu())


def first_token_mass(lm: LanguageModel, rows: Tensor, tail: int) -> Tensor:
    """`Reaction.mass` alone, (text,), without the logits, which cost as much as the rest of a small model."""
    with torch.inference_mode(), probe(lm.model, keys=[0]) as p:
        run_decoder(lm.model, rows)
    return _mass(p, tail)


def _mass(p: Probe, tail: int) -> Tensor:
    return p.attention[..., -tail:].float().mean((0, 2, 3)).cpu()


Attack = Callable[[Tensor], Tensor]


def attacks(lm: LanguageModel, suffix: Sequence[int], seed: int = 0) -> dict[str, Attack]:
    """Every attack that a model allows, as a function of text tokens (text, token) without BOS. The last half of each
    row stays as it is, so all attacks are compared on the same tokens. `none` and `none, pinned` are what to compare
    with.

    Args:
        suffix: tokens from `search`.
    """
    bos = lm.prefix("auto")
    pin = lm.tokenizer(PIN, add_special_tokens=False).input_ids
    word = lm.tokenizer(" the", add_special_tokens=False).input_ids[:1]

    def front(before: Sequence[int], rows: Tensor) -> Tensor:
        return torch.cat([_column(before, rows), rows], dim=1)

    def middle(inserted: Sequence[int], rows: Tensor) -> Tensor:
        half = rows.shape[1] // 2
        return torch.cat([_column(bos, rows), rows[:, :half], _column(inserted, rows), rows[:, half:]], dim=1)

    def other_first(rows: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = rows.flatten()[torch.randint(rows.numel(), (len(rows), 1), generator=generator)]
        return torch.cat([drawn, front(bos, rows)], dim=1)

    by_name: dict[str, Attack] = {
        "none": partial(front, bos),
        "none, pinned": partial(front, [*bos, *pin]),
        "repeated": partial(front, [*bos, *word * REPEATS]),
        "repeated, pinned": partial(front, [*bos, *pin, *word * REPEATS]),
        "other first": other_first,
        "random suffix": lambda rows: middle(random_tokens(rows, len(suffix), seed), rows),
        "found suffix": partial(middle, suffix),
    }
    if lm.tokenizer.bos_token_id is not None:
        by_name["BOS inside"] = partial(middle, [lm.tokenizer.bos_token_id])
    return by_name


def random_tokens(rows: Tensor, count: int, seed: int) -> list[int]:
    """`count` tokens drawn from the texts themselves."""
    generator = torch.Generator().manual_seed(seed)
    flat: list[int] = rows.flatten()[torch.randint(rows.numel(), (count,), generator=generator)].tolist()
    return flat


def search_rows(lm: LanguageModel, length: int) -> Tensor:
    """The texts of the search, (text, token) without BOS.

    Raises:
        FirstTokenError: they are shorter than the texts that are measured.
    """
    chosen = [passage.text for passage in texts.passages()[-SEARCH_TEXTS:]]
    return texts.encode(lm, chosen, length, "never")


def check_room(lm: LanguageModel, ids: Tensor, tokens: int) -> None:
    """Raises `FirstTokenError` where an attack on texts (text, token) without BOS, or the search for `tokens` tokens,
    cannot be run, so that it is known before hours of other measurements."""
    search_rows(lm, ids.shape[1])
    filler = ids[0, :1].tolist() * tokens
    longest = max(change(ids[:1]).shape[1] for change in attacks(lm, filler).values())
    if lm.longest_input is not None and longest > lm.longest_input:
        raise FirstTokenError(
            f"{lm.name} has {lm.longest_input} positions, and an attacked text has {longest} tokens; lower "
            f"`text_tokens` to {ids.shape[1] - longest + lm.longest_input} or less."
        )


def search(
    lm: LanguageModel, length: int, tokens: int = 3, candidates: int = 16, seed: int = 0
) -> tuple[list[int], list[float]]:
    """Tokens that, put into the middle of a text, lower the attention to its first token: greedy, one place after
    the other, among `candidates` drawn from the search texts. The model runs `tokens * candidates` times, no more.

    Returns:
        suffix  # token numbers
        mass    # on the search texts: before the first token, then after each
    """
    if tokens < 1 or candidates < 2:
        raise FirstTokenError(f"A search needs one token and two candidates or more, not {tokens} and {candidates}.")
    rows = search_rows(lm, length)
    tail, bos, half = length - length // 2, lm.prefix("auto"), length // 2
    generator = torch.Generator().manual_seed(seed)
    vocabulary = rows.unique()

    def mass(inserted: Sequence[int]) -> float:
        given = torch.cat([_column(bos, rows), rows[:, :half], _column(inserted, rows), rows[:, half:]], dim=1)
        return float(first_token_mass(lm, given, tail).mean())

    suffix: list[int] = []
    masses = [mass([])]
    for _ in tracked(range(tokens)):
        drawn = vocabulary[torch.randperm(len(vocabulary), generator=generator)[:candidates]].tolist()
        scored = [(mass([*suffix, token]), token) for token in tracked(drawn)]
        lowest, best = min(scored)
        suffix.append(best)
        masses.append(lowest)
    return suffix, masses


def _column(tokens: Sequence[int], rows: Tensor) -> Tensor:
    return torch.tensor(list(tokens), dtype=rows.dtype).expand(len(rows), -1)


# -- what a server can do -----------------------------------------------------------------------------------


def without_special(lm: LanguageModel, ids: Sequence[int]) -> list[int]:
    """A user's tokens without special ones: nobody but the server may put BOS or a turn marker into a prompt."""
    special = set(lm.tokenizer.all_special_ids)
    return [token for token in ids if token not in special]
