"""Changing one token of a text: a word given by name, near-synonyms and random tokens at chosen places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel

Kind = Literal["synonym", "random"]
Place = Literal["early", "middle", "late"]
PLACES: dict[Place, tuple[float, float]] = {"early": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "late": (2 / 3, 1.0)}
# The first token may be the sink itself, and after the last ones hardly any token is left to move.
FIRST, LAST_FREE = 2, 8


@dataclass(frozen=True)
class Edit:
    """One token of one text replaced: text number, position among the text's tokens, the new token."""

    text: int
    position: int
    token: int
    kind: Kind
    place: Place


@cache
def shakespeare() -> str:
    """A paragraph on Shakespeare, written for this project, with "greatest" near its beginning.

    The paper's own paragraph is only seen in a figure; the edit "greatest" -> "best" is the paper's.
    """
    file = resources.files("firsttoken.texts") / "data" / "shakespeare.txt"
    return file.read_text(encoding="utf-8").strip().replace("\n", " ")


@cache
def synonyms() -> dict[str, str]:
    """Word -> near-synonym, both ways, from a list written for this project."""
    file = resources.files("firsttoken.texts") / "data" / "synonyms.txt"
    pairs = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    synonym_of = {a: b for a, b in pairs}
    for a, b in pairs:
        synonym_of.setdefault(b, a)
    return synonym_of


def parse_edit(edit: str) -> tuple[str, str]:
    """`"greatest -> best"` as its two words."""
    old, arrow, new = (part.strip() for part in edit.partition("->"))
    if not (arrow and old and new):
        raise FirstTokenError(f"An edit is written 'old -> new', for example 'greatest -> best'; not {edit!r}.")
    return old, new


def edit_text(lm: LanguageModel, text: str, edit: str) -> tuple[Tensor, Tensor, int]:
    """A text before and after an edit of its first occurrence of a word.

    Returns:
        before, after  # (token,), text tokens without BOS, of equal length
        position       # of the first token that differs

    Raises:
        FirstTokenError: the word is not in the text, or the edit changes the number of tokens.
    """
    old, new = parse_edit(edit)
    if old not in text:
        raise FirstTokenError(f"The text does not contain {old!r}, so the edit {edit!r} cannot be made.")
    before, after = (
        torch.tensor(lm.tokenizer(version, add_special_tokens=False).input_ids)
        for version in (text, text.replace(old, new, 1))
    )
    if len(before) != len(after):
        raise FirstTokenError(
            f"The edit {edit!r} changes the number of tokens of {lm.name} from {len(before)} to {len(after)}; "
            "runs can only be compared token by token, so choose two words of equally many tokens."
        )
    changed = (before != after).nonzero()
    if not len(changed):
        return before, after, 0
    return before, after, int(changed[0])


def token_synonyms(lm: LanguageModel) -> dict[int, int]:
    """The list of near-synonyms as token -> token, for words that are one token each after a space."""
    synonym_of: dict[int, int] = {}
    for old, new in synonyms().items():
        a, b = (lm.tokenizer(f" {word}", add_special_tokens=False).input_ids for word in (old, new))
        if len(a) == len(b) == 1:
            synonym_of[a[0]] = b[0]
    return synonym_of


def choose_edits(
    ids: Tensor, count: int, synonym_of: dict[int, int], vocabulary: Sequence[int], seed: int = 0
) -> list[Edit]:
    """Edits over texts in order, one early, one middle and one late in each text, until there are `count`.

    Half of the places ask for a near-synonym and get none where no word of the list stands there; the others
    get a random token.

    Args:
        ids: (text, token), text tokens without BOS.
        synonym_of: see `token_synonyms`.
        vocabulary: tokens that random ones are drawn from, for example those that occur in the texts.

    Raises:
        FirstTokenError: the texts are too few for `count` edits, or too short for any.
    """
    length = ids.shape[1]
    last = length - LAST_FREE
    if last <= FIRST + 3:
        raise FirstTokenError(f"Edits need texts of at least {FIRST + LAST_FREE + 4} tokens, not {length}.")
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    edits: list[Edit] = []
    for text, row in enumerate(ids.tolist()):
        for number, (place, (low, high)) in enumerate(PLACES.items()):
            if len(edits) == count:
                return edits
            positions = range(FIRST + int(low * (last - FIRST)), FIRST + int(high * (last - FIRST)))
            kind: Kind = "synonym" if (text + number) % 2 else "random"
            if kind == "synonym":
                known = [position for position in positions if row[position] in synonym_of]
                if known:
                    position = known[draw(len(known))]
                    edits.append(Edit(text, position, synonym_of[row[position]], kind, place))
            else:
                position = positions[draw(len(positions))]
                others = [token for token in vocabulary if token != row[position]]
                edits.append(Edit(text, position, others[draw(len(others))], kind, place))
    if len(edits) < count:
        raise FirstTokenError(
            f"{len(ids)} texts give {len(edits)} edits, fewer than edits={count}; lower `edits` or give more texts."
        )
    return edits
