"""Measurements side by side on a model that is streamed from disk, against the same model in memory."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fake import LETTERS
from firsttoken import records
from firsttoken.claims.no_op import measure as no_op
from firsttoken.claims.removal import measure as removal
from firsttoken.claims.sink_position import measure as sink_position
from firsttoken.claims.theory import measure as theory
from firsttoken.errors import FirstTokenError
from firsttoken.execution import shared_pass
from firsttoken.execution.shared_pass import together
from firsttoken.execution.streaming import StreamedModel
from firsttoken.measures import ablations, task_scores
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.losses import predict
from saved_models import MEASURES, QUERIES, ids, letters_in, logits, saved
from tiny import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture
def letters(tmp_path: Path) -> str:
    return letters_in(tmp_path / "texts")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_streamed_equals_resident(name: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path / "model")
    streamed = together(lm, MEASURES, "streamed")
    assert "model" not in vars(lm), "nothing was loaded as a whole"
    resident = together(lm, MEASURES, "resident")
    assert list(streamed) == list(MEASURES)
    for measure in MEASURES:
        torch.testing.assert_close(streamed[measure], resident[measure], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(streamed["forbidden, one pass"], predict(lm, ids(), QUERIES).loss, atol=1e-4)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[StreamedModel]:
    """Every model that `together` streams."""
    streamed_models: list[StreamedModel] = []

    class Noted(StreamedModel):
        def __init__(self, lm: LanguageModel) -> None:
            super().__init__(lm)
            streamed_models.append(self)

    monkeypatch.setattr(shared_pass, "StreamedModel", Noted)
    return streamed_models


def test_the_disk_is_read_once_for_all_first_passes(tmp_path: Path, opened: list[StreamedModel]) -> None:
    lm = saved("llama", tmp_path / "model")
    for passes, measures in (
        (1, {number: logits for number in range(7)}),
        (3, {"one": logits, "three": MEASURES["forbidden, three passes"]}),
    ):
        together(lm, measures, "streamed")
        streamed = opened[-1]
        layers = sum(streamed.layer_bytes())
        everything = sum(entry.bytes for entry in streamed.checkpoint.tensors.values())
        assert streamed.checkpoint.bytes_read == everything - layers + passes * layers
        assert all(weight.is_meta for weight in streamed.model.parameters()), "all weights have left"


def test_an_error_ends_all_and_is_raised(tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")
    after: list[str] = []

    def stops(lm: LanguageModel) -> Tensor:
        def hook(module: Any, call: Any) -> Any:
            if module.layer_idx == 2:
                raise FirstTokenError("That is enough.")
            return call

        with probe(lm.model, hook=hook):
            return predict(lm, ids(), QUERIES).loss

    def goes_on(lm: LanguageModel) -> Tensor:
        try:
            return logits(lm)
        except Exception:
            after.append("caught")
            raise

    threads = set(threading.enumerate())
    with pytest.raises(FirstTokenError, match=r"That is enough\."):
        together(lm, {"first": goes_on, "second": stops, "third": goes_on}, "streamed")
    assert set(threading.enumerate()) <= threads
    assert not after


def test_no_thread_that_reads_outlives_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the threads in which transformers reads end late, and it does not wait for them."""
    worker = concurrent.futures.thread._worker  # type: ignore[attr-defined]

    def ends_late(*given: Any) -> None:
        worker(*given)
        time.sleep(0.05)

    monkeypatch.setattr(concurrent.futures.thread, "_worker", ends_late)
    lm = saved("llama", tmp_path / "model")
    threads = set(threading.enumerate())
    together(lm, {"one": logits}, "streamed")
    assert set(threading.enumerate()) <= threads
    left_early = StreamedModel(lm).in_turn()
    next(left_early)
    left_early.close()
    assert set(threading.enumerate()) <= threads


def test_several_processes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FirstTokenError, match="runs in one process"):
        together(saved("llama", tmp_path / "model"), MEASURES, "auto")


# -- the chapters on top of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3", "phi3"])
def test_chapters_stream_from_disk(
    name: str, letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[StreamedModel]
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    lm = saved(name, tmp_path / "model")
    given: dict[str, Any] = dict(text_source=letters, passages=10)

    def measured(execution: str) -> dict[str, Any]:
        apostrophe = no_op.Parameters(**given, length=32, norm_passages=4, trigger=LETTERS[50], execution=execution)
        unbounded = theory.Parameters(**given, text_tokens=24, bounded=0, repeats=16, execution=execution)
        positions = sink_position.Parameters(**given, length=32, execution=execution)
        return {
            "sink_position": sink_position.MEASUREMENT.record(lm, positions, fresh=True).values,
            "no_op": no_op.MEASUREMENT.record(lm, apostrophe, fresh=True).values,
            "theory": theory.MEASUREMENT.record(lm, unbounded, fresh=True).values,
        }

    streamed = measured("streamed")
    assert "model" not in vars(lm)
    assert len(opened) > 5
    resident = measured("resident")
    assert list(records.differences(streamed, resident, 1e-4)) == []


@pytest.mark.parametrize("arm", ablations.ABLATIONS)
def test_every_arm_without_the_first_token_streams(arm: ablations.Ablation, tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")
    rows = tuple(task_scores.TaskText(tuple(row.tolist()), (task_scores.Question(9, 5, (4, 5, 6)),)) for row in ids())
    by_execution = {}
    for execution in ("streamed", "resident"):
        means = together(lm, {"means": partial(ablations.ordinary_means, ids=ids())}, execution)["means"]
        arms = {"arm": partial(ablations.run_arm, ids=ids(), queries=QUERIES, arm=arm, means=means)}
        scores = task_scores.summary(lm, [task_scores.Task("made up", rows, 1 / 3)], [arm], means, execution=execution)
        by_execution[execution] = (together(lm, arms, execution)["arm"], scores)
    (streamed, scores), (resident, same) = by_execution["streamed"], by_execution["resident"]
    torch.testing.assert_close(streamed.predictions.loss, resident.predictions.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(streamed.alpha, resident.alpha, atol=1e-5, rtol=1e-5)
    assert scores == same


def test_a_streamed_theory_leaves_the_bound_out_and_says_so(
    letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    lm = saved("llama", tmp_path / "model")
    parameters = theory.Parameters(
        text_source=letters, passages=4, text_tokens=16, bound_text_tokens=16, repeats=4, execution="streamed"
    )
    record = theory.MEASUREMENT.record(lm, parameters)
    assert record.parameters["bounded"] == 0
    assert record.verdict is not None
    assert "not compared" in record.verdict.sentence
    assert removal.Parameters().execution == "auto"


def test_a_bound_that_was_once_compared_is_shown_where_the_model_must_be_streamed(
    letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    asked: dict[str, Any] = dict(
        text_source=letters, passages=2, bounded=2, text_tokens=16, bound_text_tokens=8, repeats=4
    )
    resident, streamed = (theory.Parameters(**asked, execution=way) for way in ("resident", "streamed"))
    whole = theory.MEASUREMENT.record(saved("llama", tmp_path / "model"), resident)
    lm = saved("llama", tmp_path / "model")
    assert theory.MEASUREMENT.record(lm, streamed) == whole
    assert "model" not in vars(lm), "nobody needed the weights"
    assert theory.MEASUREMENT.record(lm, streamed, fresh=True).parameters["bounded"] == 0
