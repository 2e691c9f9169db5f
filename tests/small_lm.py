"""A `LanguageModel` around any model in memory, with a tokenizer of one word a token; nothing is read from disk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel

from firsttoken.models import LanguageModel
from tiny import tiny_model


class WordTokenizer:
    """Numbers words in the order in which it meets them, from `start` on; 1 is BOS."""

    def __init__(self, bos: bool = True, start: int = 3, prepends: bool = True) -> None:
        self.bos_token_id = 1 if bos else None
        self.prepends = bos and prepends
        self.words: dict[str, int] = {}
        self.start = start

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = [self.words.setdefault(word, self.start + len(self.words)) for word in text.split()]
        return SimpleNamespace(input_ids=[1, *ids] if add_special_tokens and self.prepends else ids)

    def decode(self, ids: list[int]) -> str:
        names = {number: word for word, number in self.words.items()} | {1: "<bos>"}
        return "".join(" " + names.get(i, f"<{i}>") for i in ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.decode([i]) for i in ids]


def wrap(model: PreTrainedModel, tokenizer: Any | None = None) -> LanguageModel:
    """The model under the name `tiny`."""
    lm = LanguageModel("tiny", "folder", ".", None, "0", "none", "float32", "cpu")
    # Both are cached properties: what is put in their place is what they return.
    lm.__dict__["model"] = model
    lm.__dict__["tokenizer"] = tokenizer or WordTokenizer()
    return lm


def small_lm(name: str = "llama", seed: int = 0, bos: bool = True) -> LanguageModel:
    """A random model of an architecture of `tiny`."""
    return wrap(tiny_model(name, seed), WordTokenizer(bos))
