from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import corpora, generated_language
from firsttoken.pretraining.corpora import BOS, CorpusSpec, open_corpus


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(tmp_path / "cache"))
    open_corpus.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "text"
    made.mkdir()
    for number in range(100):
        (made / f"{number}.txt").write_text(
            f"# {number}: " + "def sink(query, key): return 'naïve ⟨bos⟩'\n" * (5 + number % 7)
        )
    return made


def test_documents_come_back_as_they_were(folder: Path) -> None:
    (folder / "copy.txt").write_text((folder / "3.txt").read_text())  # the same text twice counts once
    corpus = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    tokenizer = corpus.tokenizer(with_bos=False)
    documents = {tokenizer.decode(corpus.document(n).tolist()) for n in range(len(corpus.ends))}
    assert documents == {path.read_text() for path in folder.iterdir()}
    assert len(corpus.ends) == 100
    assert corpus.tokens.dtype == np.uint16
    assert corpus.lengths.sum() == len(corpus.tokens)


def test_tokenizer_puts_bos_first_only_where_asked(folder: Path) -> None:
    corpus = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    with_bos = corpus.tokenizer(with_bos=True)("def sink").input_ids
    assert with_bos == [BOS, *corpus.tokenizer(with_bos=False)("def sink").input_ids]
    assert corpus.tokenizer(with_bos=True).bos_token_id == BOS


def test_held_out_documents_are_not_trained_on(folder: Path) -> None:
    corpus = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    kept, out = set(corpus.numbers(held_out=False)), set(corpus.numbers(held_out=True))
    assert kept | out == set(range(100))
    assert not kept & out
    assert len(out) == 100 // corpora.VALIDATION
    least = int(corpus.lengths.max())
    assert all(corpus.lengths[n] >= least for n in corpus.numbers(held_out=False, least=least))


def test_same_text_same_hash_whatever_the_place(folder: Path, tmp_path: Path) -> None:
    first = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "10.txt").rename(moved / "z.md")
    second = open_corpus(CorpusSpec(str(moved), vocabulary=400))
    assert np.array_equal(first.tokens, second.tokens)
    (moved / "z.md").write_text("another text altogether " * 20)
    open_corpus.cache_clear()
    assert not np.array_equal(first.tokens, open_corpus(CorpusSpec(str(moved), vocabulary=400)).tokens)


@pytest.mark.parametrize("damage", ["shorter", "one byte", "missing", "no note"])
def test_a_damaged_cache_is_made_again(folder: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = CorpusSpec(str(folder), vocabulary=400)
    corpus = open_corpus(spec)
    before = np.array(corpus.tokens)
    file = corpus.folder / "tokens.u16"
    content = bytearray(file.read_bytes())
    if damage == "shorter":
        file.write_bytes(content[:-2])
    elif damage == "one byte":
        content[100] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    else:
        (corpus.folder / "corpus.json").write_text(json.dumps({"files": {}}))
    open_corpus.cache_clear()
    again = open_corpus(spec)
    assert "damaged; it is made again" in capsys.readouterr().out
    assert np.array_equal(again.tokens, before)
    assert again.hash == corpus.hash


def test_cached_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = CorpusSpec(str(folder), vocabulary=400)
    first = open_corpus(spec)
    capsys.readouterr()
    open_corpus.cache_clear()
    assert open_corpus(spec).hash == first.hash
    assert capsys.readouterr().out == ""


def test_limit_is_a_prefix(folder: Path) -> None:
    whole = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    part = open_corpus(CorpusSpec(str(folder), vocabulary=400, megabytes=0.018))
    texts = [part.tokenizer(False).decode(part.document(n).tolist()) for n in range(len(part.ends))]
    assert texts == [whole.tokenizer(False).decode(whole.document(n).tolist()) for n in range(len(texts))]
    assert sum(map(len, texts[:-1])) < 18_000 <= sum(map(len, texts))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (CorpusSpec("nowhere"), "There is no corpus 'nowhere'"),
        (CorpusSpec("python-source", vocabulary=100_000), "300 to 65536"),
        (CorpusSpec("generated"), "has no end"),
    ],
)
def test_bad_input_is_one_sentence(spec: CorpusSpec, says: str) -> None:
    with pytest.raises(FirstTokenError, match=says):
        open_corpus(spec)


def test_too_few_documents_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("A single text of more than two hundred characters. " * 10)
    with pytest.raises(FirstTokenError, match="has 1 documents"):
        open_corpus(CorpusSpec(str(tmp_path / "one.txt")))
    assert not list((tmp_path / "cache" / "corpora").iterdir())


def test_functions_are_cut_before_definitions_and_nothing_is_lost() -> None:
    text = (
        '"""Doc."""\nimport os\n\n@cached\n@other(1)\ndef first(x):\n    def inner():\n        pass\n    return x\n\n'
        "class Second:\n    size = 3\n\n    @property\n    def third(self):\n"
        "        def deep(): pass\n        return 1\n\n"
        "async def fourth():\n    pass\n"
    )
    parts = corpora.functions(text)
    assert "".join(parts) == text
    assert [part.split("\n")[0].strip() for part in parts] == [
        '"""Doc."""', "@cached", "def inner():", "class Second:", "@property", "async def fourth():",
    ]  # fmt: skip
    assert corpora.functions("no definitions\n") == ["no definitions\n"]
    assert corpora.functions("def first(): pass") == ["def first(): pass"]


def test_python_source_is_the_installed_code() -> None:
    corpus = open_corpus(CorpusSpec("python-source", vocabulary=512, megabytes=2.0))
    text = corpus.tokenizer(False).decode(corpus.tokens[:200_000].tolist())
    assert "import " in text
    assert "def " in text


def test_generated_language_is_a_corpus_that_is_the_same_everywhere() -> None:
    corpus = open_corpus(CorpusSpec("generated", vocabulary=512, megabytes=0.3))
    texts = [corpus.tokenizer(False).decode(corpus.document(n).tolist()) for n in range(len(corpus.ends))]
    assert texts == [generated_language.document(n) for n in range(len(texts))]
    assert sum(map(len, texts[:-1])) < 300_000 <= sum(map(len, texts))
    # Text, tokenizer and tokens; a new version of `tokenizers` that moves it makes another corpus.
    assert corpus.hash == "d776d4a99fc6efed"


def test_notes_are_a_corpus_of_which_several_share_a_window() -> None:
    corpus = open_corpus(CorpusSpec("generated-notes", vocabulary=1024, megabytes=0.3))
    decode = corpus.tokenizer(False).decode
    texts = [decode(corpus.document(n).tolist()) for n in range(len(corpus.ends))]
    long_enough = (text for text in generated_language.notes() if len(text) >= corpora.LEAST_CHARACTERS)
    assert texts == list(itertools.islice(long_enough, len(texts)))
    assert np.median(corpus.lengths) < 256 / 1.5
    with pytest.raises(FirstTokenError, match="no end; say how many megabytes"):
        open_corpus(CorpusSpec("generated-notes"))


def test_files_in_another_encoding_are_decoded_or_refused(folder: Path) -> None:
    """UTF-16 with its mark is text; Latin-1 is not taken for UTF-8 with holes."""
    (folder / "wide.txt").write_text("Wide: naïve ⟨bos⟩, " * 20, encoding="utf-16")
    corpus = open_corpus(CorpusSpec(str(folder), vocabulary=400))
    tokenizer = corpus.tokenizer(with_bos=False)
    documents = [tokenizer.decode(corpus.document(n).tolist()) for n in range(len(corpus.ends))]
    assert any(text.startswith("Wide: naïve ⟨bos⟩") for text in documents)
    open_corpus.cache_clear()
    (folder / "old.txt").write_bytes("na\xefve ".encode("latin-1") * 40)
    with pytest.raises(FirstTokenError, match=r"old\.txt is no text in UTF-8 \(byte 2\); save it as UTF-8"):
        open_corpus(CorpusSpec(str(folder), vocabulary=400))
