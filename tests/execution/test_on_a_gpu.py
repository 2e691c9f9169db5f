"""Measures on a GPU that is not there (`pretend_cuda`): no tensor meets one of another device, numbers stay the same.

It has the devices of a GPU and none of its kernels: attention takes the exact path through plain operations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fake import LETTERS
from firsttoken import models, records
from firsttoken.claims.dose import measure as dose
from firsttoken.claims.dose.runs import Bench, prepare, untouched
from firsttoken.claims.no_op import measure as no_op
from firsttoken.claims.sink_position import measure as sink_position
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.execution.shared_pass import together
from firsttoken.measures import ablations, first_token_attention
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.losses import predict
from pretend_cuda import OnCuda, pretend_cuda
from saved_models import MEASURES, QUERIES, ids, letters_in, saved
from tiny import tiny_model

pytestmark = [
    pytest.mark.usefixtures("one_thread", "own_cache"),
    pytest.mark.filterwarnings("ignore:No fused attention kernel"),
]


@pytest.fixture
def letters(tmp_path: Path) -> str:
    return letters_in(tmp_path / "texts")


NAMES = ("llama", "gemma3_text")


def on_gpu(lm: LanguageModel, resident: bool = True) -> LanguageModel:
    """The same model on the GPU; `resident`: with its weights there."""
    there = dataclasses.replace(lm, device="cuda")
    vars(there)["tokenizer"] = lm.tokenizer
    if resident:
        vars(there)["model"] = models.load(lm.path, device="cpu").model.to("cuda")
    return there


def test_the_pretence_notices_two_devices() -> None:
    with pretend_cuda():
        a, b = torch.arange(6.0, device="cuda").view(2, 3), torch.ones(3)
        assert a.device.type == "cuda"
        assert isinstance(a.float() @ b.to("cuda"), OnCuda)
        assert (a[:, 1:].sum(0) + 1).cpu().tolist() == [6.0, 8.0]
        for wrong in (lambda: a + b, lambda: a @ b, lambda: b[a[0].long()], lambda: torch.cat([a[0], b])):
            with pytest.raises(RuntimeError, match=r"same device|should be on cpu"):
                wrong()
        with pytest.raises(TypeError, match="can't convert cuda"):
            a.numpy()
        model = tiny_model("llama").to("cuda")
        with pytest.raises(RuntimeError, match="same device"), torch.no_grad():
            model(ids())


@pytest.mark.parametrize("execution", ["resident", "streamed"])
@pytest.mark.parametrize("name", NAMES)
def test_forward_measures(name: str, execution: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path / "model")
    expected = together(lm, MEASURES, "resident")
    expected_alpha = first_token_attention.alphas(lm, ids(), 34, "resident")
    with pretend_cuda():
        there = on_gpu(lm, execution == "resident")
        alpha = first_token_attention.alphas(there, ids(), 34, execution)
        on_cuda = {key: value.cpu() for key, value in together(there, MEASURES, execution).items()}
    for measure, value in expected.items():
        torch.testing.assert_close(on_cuda[measure], value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha, expected_alpha, atol=1e-5, rtol=0)


@pytest.mark.parametrize("arm", ablations.ABLATIONS)
def test_every_arm_without_the_first_token(arm: ablations.Ablation, tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")

    def run(lm: LanguageModel) -> Any:
        return ablations.run_arm(lm, ids(), QUERIES, arm, ablations.ordinary_means(lm, ids()))

    expected = run(lm)
    with pretend_cuda():
        on_cuda = run(on_gpu(lm))
    torch.testing.assert_close(on_cuda.predictions.loss.cpu(), expected.predictions.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on_cuda.alpha.cpu(), expected.alpha, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("execution", ["resident", "streamed"])
def test_doses_and_their_controls(execution: str, tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")

    def run(lm: LanguageModel, execution: str) -> list[torch.Tensor]:
        bench = Bench(lm, prepare(lm, ids(), "with_bos", 2, seed=0), 51, execution)
        ran = bench.run({"plain": untouched, "weaker": partial(dose.on_first, -2.0)})
        ran |= bench.run({"noise": dose.control("noise", 0.7), "sharpened": dose.control("sharpened", 0.7)})
        return [tensor for one in ran.values() for part in (one.moved, one.seen) for tensor in vars(part).values()]

    expected = run(lm, "resident")
    with pretend_cuda():
        on_cuda = run(on_gpu(lm, execution == "resident"), execution)
    torch.testing.assert_close([tensor.cpu() for tensor in on_cuda], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_entropies(name: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path / "model")

    def run(lm: LanguageModel) -> list[torch.Tensor]:
        with probe(lm.model, keys=[0, 4], entropy=True, renyi2=True) as p:
            predict(lm, ids(), QUERIES)
        return [p.attention_per_key.cpu(), p.entropy.cpu(), p.renyi2.cpu()]

    expected = run(lm)
    with pretend_cuda():
        on_cuda = run(on_gpu(lm))
    torch.testing.assert_close(on_cuda, expected, atol=1e-4, rtol=1e-4)


def test_chapters(letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    lm = saved("llama", tmp_path / "model")
    given: dict[str, Any] = dict(text_source=letters, passages=8, execution="resident")

    positions = sink_position.Parameters(**given, length=32)
    rows = smoothing.Parameters(**given, text_tokens=16, maps=1)
    apostrophe = no_op.Parameters(**given, length=32, norm_passages=2, trigger=LETTERS[50])

    def measured(lm: LanguageModel) -> dict[str, Any]:
        return {
            "sink_position": sink_position.MEASUREMENT.record(lm, positions, fresh=True).values,
            "no_op": no_op.MEASUREMENT.record(lm, apostrophe, fresh=True).values,
            "smoothing": smoothing.MEASUREMENT.record(lm, rows, fresh=True).values,
        }

    expected = measured(lm)
    with pretend_cuda():
        on_cuda = measured(on_gpu(lm))
    assert list(records.differences(on_cuda, expected, 1e-3)) == []
