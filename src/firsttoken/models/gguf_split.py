"""How a byte-level vocabulary in a GGUF file wants its text cut before merges are applied.

The file only names the way, under `tokenizer.ggml.pre`. The merges were learnt on texts cut that way, and on texts cut
otherwise they give other tokens without a word: "12345" is one piece for GPT-2, two for Llama 3 and five for Qwen 2.
Names and patterns are those of llama.cpp (`llm_tokenizer_bpe` and `llama_vocab::impl::load` in src/llama-vocab.cpp),
which notes the pattern of each model's own tokenizer.json beside its own.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, pre_tokenizers

from firsttoken.errors import FirstTokenError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(digits: str, letters: str = r"\p{L}+", marks: str = "") -> str:
    return rf"{_CONTRACTIONS}|{_BEFORE}{letters}|{digits}| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|{_SPACES}"


def _cased(digits: str, contractions: str = "") -> str:
    tail = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    words = rf"{_BEFORE}{_UPPER}*{_LOWER}+{contractions}|{_BEFORE}{_UPPER}+{_LOWER}*{contractions}"
    return rf"{words}|{digits}|{tail}"


_PATTERNS = {
    "llama-bpe": _words(r"\p{N}{1,3}"),
    "qwen2": _words(r"\p{N}"),
    "qwen35": _words(r"\p{N}", r"[\p{L}\p{M}]+", r"\p{M}"),
    "tekken": _cased(r"\p{N}"),
    "gpt-4o": _cased(r"\p{N}{1,3}", f"{_CONTRACTIONS}?"),
}
_ALIKE = {
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 "
    "chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan grok-2",
    "gpt-4o": "llama4 kanana2 talkie minimax-m2",
    # The pattern of GPT-2, with and without every digit by itself.
    "gpt-2": "phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais trillion "
    "granite-docling exaone4 jina-v1-en jina-v2-code roberta-bpe",
    "starcoder": "refact command-r smollm codeshell exaone minerva-7b",
}
_KIND_OF = {name: kind for kind, alike in _ALIKE.items() for name in (kind, *alike.split())} | {
    kind: kind for kind in _PATTERNS
}
# Files from before the key, and what llama.cpp's converter writes when it does not know: transformers' own rule holds.
UNSAID = (None, "default")


def split_of(pre: object, name: str) -> Any:
    """The pre-tokenizer that `tokenizer.ggml.pre` asks for; None where it says nothing.

    Args:
        name: the model's, for the sentence.

    Raises:
        FirstTokenError: it asks for one that is not known here.
    """
    if pre in UNSAID:
        return None
    kind = _KIND_OF.get(str(pre))
    if kind is None:
        raise FirstTokenError(
            f"The GGUF file of {name} wants its text cut as {str(pre)!r} does, which is not known here, so its tokens "
            "would be others than the model's; give the model by its hub id, or as a folder with its own tokenizer."
        )
    if kind in _PATTERNS:
        split = pre_tokenizers.Split(Regex(_PATTERNS[kind]), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "starcoder":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    return bytes_
