"""Simple classes of a token and its predecessor: the vocabulary in which a head's rule is named.

A class is a table of booleans over tokens, and a rule names one of them as its condition. Everything is decided from
the decoded strings, so the same classes serve every tokenizer.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel

_WORDS = {
    "article": "a an the",
    "preposition": "of in to for with on at by from into over under between through about after before during",
    "conjunction": "and or but nor so yet because although while if when as than that which who",
    "pronoun": "i you he she it we they me him her us them my your his its our their this these those",
    "auxiliary verb": "is are was were be been being am has have had do does did will would can could may might must",
}
_LISTS = {name: frozenset(words.split()) for name, words in _WORDS.items()}
_FUNCTION_WORDS = frozenset().union(*_LISTS.values())
_PUNCTUATION = frozenset(string.punctuation + "“”‘’«»–—…")


def _is_word(token: str) -> bool:
    return token.strip().isalpha()


CLASSES: dict[str, Callable[[str], bool]] = {
    "punctuation": lambda t: bool(t.strip()) and set(t.strip()) <= _PUNCTUATION,
    "comma": lambda t: t.strip() == ",",
    "end of a sentence": lambda t: t.strip()[:1] in (".", "!", "?") and bool(t.strip()),
    "colon or semicolon": lambda t: t.strip() in (":", ";"),
    "apostrophe": lambda t: "'" in t or "’" in t,
    "quotation mark": lambda t: t.strip() in ('"', "“", "”"),
    "bracket": lambda t: bool(t.strip()) and set(t.strip()) <= set("()[]{}<>"),
    "dash": lambda t: bool(t.strip()) and set(t.strip()) <= set("-–—"),
    "newline": lambda t: "\n" in t,
    "separator (punctuation or newline)": lambda t: "\n" in t or (bool(t.strip()) and set(t.strip()) <= _PUNCTUATION),
    "digit": lambda t: t.strip().isdigit(),
    "capital letter": lambda t: t.strip()[:1].isupper(),
    "start of a word": lambda t: t[:1] == " " and _is_word(t),
    "letters inside a word": lambda t: t[:1].isalpha() and _is_word(t),
    "function word": lambda t: t.strip().lower() in _FUNCTION_WORDS,
    "content word": lambda t: t[:1] == " " and _is_word(t) and t.strip().lower() not in _FUNCTION_WORDS,
} | {name: (lambda t, words=words: t.strip().lower() in words) for name, words in _LISTS.items()}


@dataclass(frozen=True)
class TokenClasses:
    """Named classes and which tokens are of them."""

    names: tuple[str, ...]
    holds: Tensor  # (class, text, token), bool

    def kept(self, least: int) -> TokenClasses:
        """Those that `least` tokens or more are of, and as many are not; the others could never be established."""
        counts = self.holds.flatten(1).sum(1)
        total = self.holds[0].numel() if len(self.names) else 0
        keep = ((counts >= least) & (total - counts >= least)).nonzero()[:, 0].tolist()
        return TokenClasses(tuple(self.names[i] for i in keep), self.holds[keep])


def decode(lm: LanguageModel, ids: Tensor) -> list[list[str]]:
    """The string of every token: [text][token]."""
    known = {int(i): lm.tokenizer.decode([int(i)]) for i in ids.unique()}
    return [[known[i] for i in row] for row in ids.tolist()]


def classes_of(tokens: Sequence[Sequence[str]]) -> TokenClasses:
    """All classes of the tokens of some texts of equal length.

    Named `token: c` where class c holds of the token itself, `previous token: c` where it holds of the one before,
    `repeated token`, `repeated word` and `repeated pair` where the token, or the pair with its predecessor, came
    earlier in the text.
    The first token of a text may be BOS; it counts as a predecessor without a class.
    """
    classes = {name: _table([[rule(t) for t in text] for text in tokens]) for name, rule in CLASSES.items()}
    names, tables = [], []
    for name, table in classes.items():
        names.append(f"token: {name}")
        tables.append(table)
        before = torch.zeros_like(table)
        before[:, 2:] = table[:, 1:-1]
        names.append(f"previous token: {name}")
        tables.append(before)
    repeated = _repeated(tokens, 1)
    names += ["repeated token", "repeated word", "repeated pair"]
    tables += [
        repeated,
        repeated & (classes["start of a word"] | classes["letters inside a word"]),
        _repeated(tokens, 2),
    ]
    return TokenClasses(tuple(names), torch.stack(tables))


def containing(tokens: Sequence[Sequence[str]], trigger: str) -> Tensor:
    """Where a token contains the string `trigger`: (text, token), bool.

    Raises:
        FirstTokenError: no token does.
    """
    contains = _table([[trigger in t for t in text] for text in tokens])
    if not trigger or not contains.any():
        raise FirstTokenError(
            f"No token of these {len(tokens)} texts contains the trigger {trigger!r}; give another trigger, more "
            "passages or texts that have it."
        )
    return contains


def _table(rows: list[list[bool]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def _repeated(tokens: Sequence[Sequence[str]], width: int) -> Tensor:
    rows = []
    for text in tokens:
        seen: set[tuple[str, ...]] = set()
        row = []
        for j in range(len(text)):
            piece = tuple(text[j - width + 1 : j + 1]) if j - width + 1 >= 1 else ()
            row.append(bool(piece) and piece in seen)
            seen.add(piece)
        rows.append(row)
    return _table(rows)
