"""Data sets of the hub, which tests cannot reach: stand-ins for it, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.corpora import CorpusSpec, open_corpus

LONG = "An article about sinks and the first token of a text. " * 30


def stand_in(monkeypatch: pytest.MonkeyPatch, rows: Any, asked: list[Any]) -> None:
    class Api:
        def dataset_info(self, name: str) -> Any:
            return SimpleNamespace(sha="c0ffee")

    def load_dataset(*names: Any, **options: Any) -> Any:
        asked.append((names, options["revision"]))
        return rows

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_long_texts_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    stand_in(monkeypatch, [{"text": LONG + "one"}, {"text": "short"}, {"text": LONG + "two"}], asked)
    assert [text[-3:] for text in texts.texts_from("org/name:part", limit=5)] == ["one", "two"]
    assert asked == [(("org/name", "part"), "c0ffee")]


def test_a_corpus_of_the_hub_is_that_of_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(tmp_path))
    stand_in(monkeypatch, [{"text": f"{number} {LONG}"} for number in range(60)], [])
    corpus = open_corpus(CorpusSpec("org/articles", vocabulary=300))
    assert len(corpus.ends) == 60
    assert corpus.tokenizer(False).decode(corpus.document(7).tolist()).startswith("7 An article")


def broken() -> Iterator[dict[str, str]]:
    yield {"text": LONG}
    raise ConnectionError("gone")


@pytest.mark.parametrize(("rows", "says"), [([{"body": LONG}], "no column 'text'"), (broken(), "could not be read")])
def test_a_wrong_column_and_a_lost_network_are_one_sentence(
    rows: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, rows, [])
    with pytest.raises(FirstTokenError, match=says):
        texts.texts_from("org/name", limit=5)


def test_no_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any, name: str) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(FirstTokenError, match=r"org/name could not be read \(ConnectionError\); check its id"):
        texts.texts_from("org/name")
    with pytest.raises(FirstTokenError, match="There are no texts 'nothing'"):
        texts.texts_from("nothing")
