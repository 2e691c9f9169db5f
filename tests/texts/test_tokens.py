"""What stands first is what the tokenizer puts there, once, and what was written in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, processors
from tokenizers import models as tokenizer_models
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from fake import LETTERS, Letters, fake_lm
from firsttoken import models, texts
from firsttoken.errors import FirstTokenError
from firsttoken.measures.measurement import about
from firsttoken.models import LanguageModel
from small_gguf import small_llama
from tiny import tiny_model

TEXT = "The quick brown fox"


def with_template(single: str | None, special: list[str], bos: str | None) -> LanguageModel:
    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    if single is not None:
        numbers = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=None, special_tokens=numbers)
    return fake_lm(small_llama(vocab_size=300), PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos))


CASES = [
    ("[gMASK] <sop> $A", ["[gMASK]", "<sop>"], None),
    ("</s> $A", ["<s>", "</s>"], "<s>"),
    ("[CLS] $A [SEP]", ["[CLS]", "[SEP]"], None),
    ("<s> $A </s>", ["<s>", "</s>"], "<s>"),
    ("<s> <s> $A", ["<s>"], "<s>"),
    ("$A </s>", ["<s>", "</s>"], "<s>"),
    (None, ["<s>"], "<s>"),
]


@pytest.mark.parametrize(("single", "special", "bos"), CASES)
def test_auto_is_what_the_tokenizer_does(single: str | None, special: list[str], bos: str | None) -> None:
    lm = with_template(single, special, bos)
    ids = texts.encode(lm, [TEXT], 6, "auto")
    assert ids[0].tolist() == lm.tokenizer(TEXT).input_ids[:6]
    assert texts.first_tokens(lm, ids) == lm.tokenizer.convert_ids_to_tokens(lm.tokenizer(TEXT).input_ids[:3])
    assert texts.windows(lm, TEXT, 5, 2)[0].tolist() == lm.tokenizer(TEXT).input_ids[:5]
    bare = lm.tokenizer(TEXT, add_special_tokens=False).input_ids
    assert texts.encode(lm, [TEXT], 6, "never")[0].tolist() == bare[:6]
    assert lm.prepends_bos == (lm.prefix("auto") != [])
    if bos and not lm.prefix("auto"):
        assert lm.prefix("always") == [lm.tokenizer.bos_token_id]
    # A text that begins with (a part of) the prefix itself is not given it twice.
    plain, names = ids[0].tolist(), lm.tokenizer.convert_ids_to_tokens(lm.prefix("auto"))
    for part in range(len(names) + 1):
        assert texts.encode(lm, ["".join(names[part:]) + TEXT], 6, "auto")[0].tolist() == plain
        assert texts.windows(lm, "".join(names[part:]) + TEXT, 6, 1)[0].tolist() == plain
    if names:
        twice = texts.encode(lm, ["".join(names) + TEXT], 6, "always")[0].tolist()
        assert twice[: 2 * len(names)] == 2 * lm.prefix("auto")


@pytest.mark.parametrize("unknown", [None, "[UNK]"])
def test_a_vocabulary_without_the_letter_a_keeps_its_prefix(unknown: str | None) -> None:
    letters = {token: number for number, token in enumerate(["<s>", "</s>", *"ACGT", *filter(None, [unknown])])}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab=letters, merges=[], unk_token=unknown))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": unknown}
    lm = fake_lm(small_llama(vocab_size=8), PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named))
    assert lm.prefix("auto") == [0]
    assert texts.encode(lm, ["ACGTACGT"], 4)[0].tolist() == lm.tokenizer("ACGTACGT").input_ids[:4] == [0, 2, 3, 4]


def test_a_tokenizer_that_makes_no_tokens() -> None:
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab={"<s>": 0}, merges=[]))
    lm = fake_lm(small_llama(), PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>"))
    with pytest.raises(FirstTokenError, match="makes no token of any text"):
        lm.prefix("auto")


def test_inputs_that_the_model_has_no_place_for() -> None:
    lm = with_template("<s> $A", ["<s>"], "<s>")
    vars(lm)["config"].vocab_size = 256
    with pytest.raises(FirstTokenError, match="gives token 256, but the model has 256 embeddings"):
        texts.encode(lm, [TEXT], 6)
    short = fake_lm(tiny_model("gpt2"))
    assert short.longest_input == 256
    for call in (lambda: texts.encode(short, ["a"], 257), lambda: texts.windows(short, "a", 257, 1)):
        with pytest.raises(FirstTokenError, match="has 256 positions and cannot read 257 tokens; lower"):
            call()
    assert fake_lm(tiny_model("llama")).longest_input is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_no_text(encoding: str, tmp_path: Path) -> None:
    text = "Zwölf Boxkämpfer\njagen Viktor."
    (tmp_path / "a.txt").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert texts.texts_from(str(tmp_path)) == texts.texts_from(str(tmp_path / "a.txt")) == [text]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be"])
@pytest.mark.parametrize("marks", [2, 3])
def test_no_byte_order_mark_is_left_where_there_are_several(encoding: str, marks: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(("\ufeff" * marks + "Zwölf Boxkämpfer").encode(encoding))
    assert texts.texts_from(str(tmp_path / "a.txt")) == ["Zwölf Boxkämpfer"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Zwölf Boxkämpfer".encode(encoding))
    for source in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(FirstTokenError, match="save it as UTF-8"):
            texts.texts_from(str(source))


def test_first_tokens_are_those_of_the_first_text() -> None:
    lm = with_template(None, ["<s>"], "<s>")
    assert texts.first_tokens(lm, torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])) == texts.first_tokens(
        lm, torch.tensor([1, 2, 3])
    )


def test_a_text_whose_first_tokens_are_long_is_not_too_short() -> None:
    """Only the beginning of a long text is encoded, and a row of dashes may be one token."""
    tokens = [*LETTERS, "-" * 64]
    lm = fake_lm(small_llama(vocab_size=len(tokens)), Letters(tokens))
    text = "-" * 64 * 300 + LETTERS[5]
    assert texts.encode(lm, [text], 301, "never")[0].tolist() == [97] * 300 + [5]
    with pytest.raises(FirstTokenError, match="has 301 tokens"):
        texts.encode(lm, [text], 302, "never")


@pytest.mark.parametrize("text", ["=" * 1000 + " end of line", "\n" + " " * 1000 + "x" * 500, "-" * 300 + "a" * 2000])
@pytest.mark.parametrize("length", [2, 3, 5])
def test_tokens_at_the_beginning_are_those_of_the_whole_text(text: str, length: int) -> None:
    """Not of a piece of it, which may end in the middle of a token."""
    lm = models.load("smollm2-135m")
    whole = lm.tokenizer(text, add_special_tokens=False).input_ids
    assert texts.encode(lm, [text], length, "never")[0].tolist() == whole[:length]
    assert texts.opening(lm, text, "never").tolist() == whole[:3]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_opening_of_a_text_is_what_it_has(count: int) -> None:
    lm = fake_lm(small_llama(vocab_size=97))
    text = "".join(LETTERS[5 : 5 + count])
    assert texts.opening(lm, text, "never").tolist() == list(range(5, 5 + min(count, 3)))
    assert texts.opening(lm, text, "auto").tolist() == [1, *range(5, 5 + min(count, 2))]
    assert len(about(lm, object(), [text])["first_tokens"]) == min(count + 1, 3)
