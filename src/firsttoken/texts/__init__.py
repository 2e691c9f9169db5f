"""Texts: the project's own passages, the reader's files, data sets; edits of them; from text to tokens."""

from firsttoken.records.reuse import hash_of_texts as texts_hash
from firsttoken.texts.prose import Passage, exactly, long_text, passage, passages, texts_from
from firsttoken.texts.tokens import encode, first_tokens, opening, windows, with_prefix

__all__ = [
    "Passage",
    "encode",
    "exactly",
    "first_tokens",
    "long_text",
    "opening",
    "passage",
    "passages",
    "texts_from",
    "texts_hash",
    "windows",
    "with_prefix",
]
