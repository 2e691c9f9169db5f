"""The passages are what the book says they are, and texts that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED


def test_enough_varied_passages() -> None:
    english, every = texts.passages(), texts.passages(None)
    assert len(english) >= 170
    assert len({p.name for p in every}) == len(every)
    assert len({p.text for p in every}) == len(every)
    assert len({p.domain for p in english}) >= 9
    assert len({p.language for p in every}) >= 4
    assert len({p.domain for p in english[:16]}) == 16, "the first passages are one of each domain"
    openings = [p.text.split()[0] for p in english]
    assert max(openings.count(word) for word in set(openings)) <= len(english) / 8


@pytest.mark.parametrize("name", BUNDLED)
def test_every_passage_has_128_tokens(name: str, bundled: Callable[[str], LanguageModel]) -> None:
    lm = bundled(name)
    ids = texts.encode(lm, [p.text for p in texts.passages(None)], 128, bos="never")
    assert ids.shape == (len(texts.passages(None)), 128)
    assert texts.windows(lm, texts.long_text(), 8192, 1).shape == (1, 8192)


def test_bos_policy(bundled: Callable[[str], LanguageModel]) -> None:
    gemma, smol = bundled("gemma3-270m"), bundled("smollm2-135m")
    text = [texts.passages()[0].text]
    for lm in (gemma, smol):
        bare = texts.encode(lm, text, 20, "never")[0].tolist()
        forced = texts.encode(lm, text, 20, "always")[0].tolist()
        auto = texts.encode(lm, text, 20, "auto")[0].tolist()
        assert forced == [lm.tokenizer.bos_token_id, *bare[:19]]
        # What the tokenizer itself does is the reference for `auto`.
        assert auto == lm.tokenizer(text[0]).input_ids[:20]
    assert gemma.prepends_bos
    assert not smol.prepends_bos
    with pytest.raises(FirstTokenError, match="auto, always or never"):
        texts.encode(smol, text, 20, "sometimes")  # type: ignore[arg-type]


def test_short_texts_are_refused_with_what_to_do(bundled: Callable[[str], LanguageModel]) -> None:
    lm = bundled("smollm2-135m")
    with pytest.raises(FirstTokenError, match=r"Text 2 of 2 .* fewer than the 64.* `text_tokens`\) to 3"):
        texts.encode(lm, [texts.passages()[0].text, "Only three tokens"], 64)
    with pytest.raises(FirstTokenError, match="lower `length`"):
        texts.windows(lm, "a short text", 64, 2)
    with pytest.raises(FirstTokenError, match="at least 2"):
        texts.encode(lm, ["a"], 1)


def test_windows_are_consecutive_pieces(bundled: Callable[[str], LanguageModel]) -> None:
    lm = bundled("gemma3-270m")
    ids = texts.windows(lm, texts.long_text(), 50, 3)
    whole = lm.tokenizer(texts.long_text()[:4000], add_special_tokens=False).input_ids
    assert (ids[:, 0] == lm.tokenizer.bos_token_id).all()
    assert torch.cat([row[1:] for row in ids]).tolist() == whole[: 3 * 49]


def test_own_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first\n---\nsecond\n---\n\n")
    (tmp_path / "b.md").write_text("third")
    assert texts.texts_from(str(tmp_path / "a.txt")) == ["first", "second"]
    assert len(texts.texts_from(str(tmp_path))) == 2
    assert len(texts.texts_from("passages", limit=5)) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(FirstTokenError, match="holds no text"):
        texts.texts_from(str(tmp_path / "empty"))
    with pytest.raises(FirstTokenError, match="There are no texts 'pasages'"):
        texts.texts_from("pasages")


def test_passages_by_name() -> None:
    first = texts.passages()[0]
    assert texts.passage(first.name) == first.text
    assert texts.passage("a text of my own") == "a text of my own"
    with pytest.raises(FirstTokenError, match="did you mean 'goat-auction-bluff'"):
        texts.passage("goat-auction")


def test_hash_tells_texts_and_orders_apart() -> None:
    hashes = {texts.texts_hash(t) for t in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}
    assert len(hashes) == 5


def test_marks_before_any_part_are_no_text_and_hidden_copies_are_none(tmp_path: Path) -> None:
    (tmp_path / "parts.TXT").write_text("\ufefffirst\n---\n\ufeffsecond\n---\n \n\ufeff third", encoding="utf-8")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "parts-checkpoint.txt").write_text("a copy")
    assert texts.texts_from(str(tmp_path / "parts.TXT")) == ["first", "second", "third"]
    assert len(texts.texts_from(str(tmp_path))) == 1
    for nothing in ("", " "):
        with pytest.raises(FirstTokenError, match="No text was named"):
            texts.texts_from(nothing)
