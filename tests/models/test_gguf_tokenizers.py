"""Tokenizers out of GGUF files, against what they were made from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, GemmaTokenizer, GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer

from firsttoken import models, texts
from firsttoken.errors import FirstTokenError
from firsttoken.models.gguf_conversion import _put_space_first, _save_as_it_is, rules
from firsttoken.models.gguf_header import GgufHeader
from firsttoken.models.gguf_split import _KIND_OF, _PATTERNS, split_of
from small_gguf import small_llama, tensors_of, write_gguf

TEXT = "In 12345 days I'LL pay  3€\n\nDr. Ōsaka's naïve CamelCase: x_1==22"
# The pieces by the models' own tokenizer.json; a space belongs to the word behind it.
PIECES = {
    "gpt-2": "In| 12345| days| I|'|LL| pay| | 3|€|\n|\n|Dr|.| Ōsaka|'s| naïve| CamelCase|:| x|_|1|==|22",
    "smollm": "In| |1|2|3|4|5| days| I|'|LL| pay|  |3|€|\n|\n|Dr|.| Ōsaka|'s| naïve| CamelCase|:| x|_|1|==|2|2",
    "llama-bpe": "In| |123|45| days| I|'LL| pay| | |3|€\n\n|Dr|.| Ōsaka|'s| naïve| CamelCase|:| x|_|1|==|22",
    "qwen2": "In| |1|2|3|4|5| days| I|'LL| pay| | |3|€\n\n|Dr|.| Ōsaka|'s| naïve| CamelCase|:| x|_|1|==|2|2",
    "tekken": "In| |1|2|3|4|5| days| I|'LL| pay| | |3|€\n\n|Dr|.| Ōsaka|'s| naïve| Camel|Case|:| x|_|1|==|2|2",
    "gpt-4o": "In| |123|45| days| I'LL| pay| | |3|€\n\n|Dr|.| Ōsaka's| naïve| Camel|Case|:| x|_|1|==|22",
}


@pytest.mark.parametrize("pre", PIECES)
def test_text_is_cut_as_the_file_asks(pre: str) -> None:
    cut = split_of(pre, "a model").pre_tokenize_str(TEXT)
    assert "".join(TEXT[start:end] for _, (start, end) in cut) == TEXT
    assert "|".join(TEXT[start:end] for _, (start, end) in cut) == PIECES[pre]


def test_patterns_are_those_of_transformers() -> None:
    mapping: Any = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    known = getattr(mapping, "GGUF_PRE_TOKENIZER_SPLITS", None)
    if known is None:
        pytest.skip("the installed transformers keeps its patterns elsewhere")
    assert len(known) > 20
    for name, pattern in known.items():
        assert _PATTERNS[_KIND_OF[name]] == pattern, name


def test_merges_do_not_cross_the_cuts(tmp_path: Path) -> None:
    """A vocabulary that would merge five digits into one token."""
    numbers = ["12", "123", "1234", "12345"]
    merges = ["1 2", "12 3", "123 4", "1234 5"]
    expected = {"gpt-2": ["12345"], "llama-bpe": ["123", "4", "5"], "starcoder": list("12345"), "qwen2": list("12345")}
    for pre, tokens in expected.items():
        model = small_llama(vocab_size=265)
        vocabulary = ["<|begin|>", "<|end|>", *sorted(ByteLevel.alphabet()), "th", "the", *numbers, "<|pad|>"]
        lm = models.load(
            str(write_gguf(tmp_path / f"{pre}.gguf", model, pre=pre, vocabulary=vocabulary, merges=merges))
        )
        ids = lm.tokenizer("12345", add_special_tokens=False).input_ids
        assert lm.tokenizer.convert_ids_to_tokens(ids) == tokens, pre


def test_an_unknown_cut_is_refused(tmp_path: Path) -> None:
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", small_llama(), pre="bloom")))
    with pytest.raises(FirstTokenError, match="wants its text cut as 'bloom' does, which is not known here"):
        _ = lm.tokenizer


def test_a_bundled_model_reads_line_breaks_before_digits_as_its_vocabulary_does() -> None:
    """smollm2-135m cuts digits off first, so that two line breaks before one stay together; GPT-2's way parts them."""
    tokenizer = models.load("smollm2-135m").tokenizer
    assert tokenizer.tokenize("step.\n\n12 of\n  3") == ["step", ".", "ĊĊ", "1", "2", "Ġof", "ĊĠĠ", "3"]
    assert tokenizer.tokenize("step.\n\nTwo") == ["step", ".", "Ċ", "Ċ", "Two"]


def of_sentencepiece(path: Path, space_first: bool | None) -> tuple[models.LanguageModel, Any]:
    """A model with a vocabulary trained on the project's passages, and SentencePiece's own processor for it.

    Args:
        space_first: what the file says of a space before each text; None: nothing.
    """
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(passage.text for passage in texts.passages()[:80]), model_writer=trained,
        model_type="bpe", vocab_size=800, byte_fallback=True, unk_id=0, bos_id=1, eos_id=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        add_dummy_prefix=space_first is not False,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    size = processor.get_piece_size()
    kinds = [
        2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1
        for i in range(size)
    ]

    def vocabulary(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([processor.id_to_piece(i) for i in range(size)])
        writer.add_token_scores([processor.get_score(i) for i in range(size)])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if space_first is not None:
            writer.add_add_space_prefix(space_first)

    model = small_llama(vocab_size=size, bos_token_id=1, eos_token_id=2)
    return models.load(str(write_gguf(path, model, tensors_of(model), tokenizer=vocabulary))), processor


@pytest.mark.parametrize("space_first", [None, True, False])
def test_a_sentencepiece_vocabulary_gives_the_tokens_of_sentencepiece(
    tmp_path: Path, space_first: bool | None
) -> None:
    """Also the first one, which begins with a space or not as the file says."""
    lm, processor = of_sentencepiece(tmp_path / "a.gguf", space_first)
    passages = [passage.text for passage in texts.passages()][80:]
    for text in [*passages, "Two\n\nlines,  two spaces and 東京 🙂", "ünïcödé 12345"]:
        assert lm.tokenizer(text, add_special_tokens=False).input_ids == processor.encode(text), text
    assert lm.prefix("auto") == [1], "llama.cpp puts BOS first where the file does not say otherwise"
    bare = processor.encode("In the beginning was a first token.")
    assert texts.encode(lm, ["In the beginning was a first token."], 4)[0].tolist() == [1, *bare[:3]]
    # A record from when the key was not heard does not answer where it matters, and does where it does not.
    assert lm.provenance()["conversion"] == ("3-no-space" if space_first is False else "3")


def test_a_space_that_the_tokenizer_has_no_way_to_put_first_is_refused() -> None:
    tokenizer = GemmaTokenizer(vocab={"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "\u2581a": 4, "a": 5}, merges=[])
    _put_space_first("a model", tokenizer, wanted=False)
    with pytest.raises(FirstTokenError, match="add_space_prefix = True, and the tokenizer that transformers makes"):
        _put_space_first("a model", tokenizer, wanted=True)


BYTES = {token: number for number, token in enumerate(["<s>", *sorted(ByteLevel.alphabet()), "12", "123"])}
MERGES = [("1", "2"), ("12", "3")]
KEPT = {
    "starcoder2 by digit": (GPT2Tokenizer, "starcoder", ["1", "2", "3"]),
    "qwen2 as llama": (Qwen2Tokenizer, "llama-bpe", ["123"]),
    "qwen2 as itself": (Qwen2Tokenizer, "qwen2", ["1", "2", "3"]),
    "mamba as llama": (GPTNeoXTokenizer, "llama-bpe", ["123"]),
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_tokenizer_is_the_same_when_it_is_read_back(kind: str, tmp_path: Path) -> None:
    """Their classes put their own way of cutting a text in place of the file's."""
    class_, pre, tokens = KEPT[kind]
    tokenizer = class_(vocab=BYTES, merges=MERGES, bos_token="<s>")
    tokenizer.backend_tokenizer.pre_tokenizer = split_of(pre, "a model")
    _save_as_it_is("a model", tokenizer, tmp_path)
    kept = AutoTokenizer.from_pretrained(tmp_path)
    assert kept.tokenize("123") == tokenizer.tokenize("123") == tokens
    assert kept("123 and 45").input_ids == tokenizer("123 and 45").input_ids
    assert kept.bos_token_id == tokenizer.bos_token_id


def test_files_whose_cut_was_lost_are_measured_again() -> None:
    def of(architecture: str, pre: str) -> str:
        return rules(GgufHeader(keys={"general.architecture": architecture, "tokenizer.ggml.pre": pre}, tensors={}))

    assert of("llama", "llama-bpe") == of("qwen2", "qwen2") == of("gemma3", "default") == "3"
    assert of("starcoder2", "starcoder") == of("qwen2", "llama-bpe") == of("mamba", "gpt-2") == "3-as-cut"
