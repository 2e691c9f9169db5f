"""A `LanguageModel` around a tiny random model, with a tokenizer of letters; nothing is read from disk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel

from firsttoken.models import LanguageModel

LETTERS = [" " + chr(97 + i % 26) + chr(97 + i // 26) for i in range(97)]


class Letters:
    """Token i is one short string of its own, given by `strings`; BOS is 1."""

    bos_token_id: int | None = 1

    def __init__(self, strings: list[str] | None = None, prepends: bool = True) -> None:
        self.strings = strings or LETTERS
        self.prepends = prepends
        self.numbers = {string: i for i, string in enumerate(self.strings)}

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = []
        while text:
            # The longest token that fits; a character that is in no token is the unknown token 3.
            fits = [s for s in self.numbers if text.startswith(s)]
            best = max(fits, key=len) if fits else text[0]
            ids.append(self.numbers.get(best, 3))
            text = text[len(best) :]
        if add_special_tokens and self.prepends and self.bos_token_id is not None:
            ids = [self.bos_token_id, *ids]
        return SimpleNamespace(input_ids=ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.strings[i] for i in ids]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.strings[i] for i in ids)


def fake_lm(model: PreTrainedModel, tokenizer: Any = None) -> LanguageModel:
    lm = LanguageModel("tiny", "folder", ".", None, "0" * 16, "none", "float32", "cpu")
    # Cached properties: what is put there is not computed.
    lm.__dict__["model"] = model
    lm.__dict__["config"] = model.config
    lm.__dict__["tokenizer"] = tokenizer or Letters()
    return lm
