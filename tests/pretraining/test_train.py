"""Training runs end to end at the budget `smoke`: killed, resumed, shared among processes, and bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from firsttoken import models, records
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.pretraining import budgets, run_spec, train
from firsttoken.pretraining.corpora import BOS, open_corpus
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training, from_command_line

TRAINING = Training("smoke", Packing(64, "intra_document", "fixed"))
SCRIPT = """
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.train import measure
measure(Training("smoke", Packing(64, "intra_document", "fixed")))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, new_cache: Callable[[Path], Path]) -> dict[str, str]:
    """A cache of its own for all tests here."""
    folder = tmp_path_factory.mktemp("lab")
    return {"FIRSTTOKEN_CACHE": str(new_cache(folder / "cache")), "FIRSTTOKEN_RESULTS": str(folder / "results")}


@pytest.fixture(autouse=True)
def in_these_places(places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_CACHE", places["FIRSTTOKEN_CACHE"])
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def uninterrupted(places: dict[str, str]) -> records.Record:
    """The run that the others are compared with; it has every loss."""
    patch = pytest.MonkeyPatch()
    for name, value in places.items():
        patch.setenv(name, value)
    # As many as in the other runs: sums over another number of threads are rounded otherwise.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        record = train.measure(TRAINING)
        assert record is not None
        return record
    finally:
        torch.set_num_threads(before)
        patch.undo()


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def read() -> records.Record:
    record = run_spec.find(TRAINING)
    assert record is not None
    return record


def test_a_run_learns_and_its_record_says_all(uninterrupted: records.Record) -> None:
    values = uninterrupted.values
    settings = TRAINING.settings()
    assert [step for step, _ in values["losses"]] == list(range(1, settings.steps + 1))
    assert values["losses"][-1][1] < values["losses"][0][1] - 1
    assert values["curve"][0]["step"] == 0
    assert values["curve"][-1]["step"] == settings.steps
    assert values["tokens"] == settings.tokens
    assert values["weights"] == settings.parameters
    assert list(values["final"]) == ["64"]
    for arm in ("BOS+text", "text"):
        end = values["curve"][-1][arm]["loss"]
        assert values["final"]["64"][arm]["loss"]["value"] == pytest.approx(end, abs=1e-4)
    assert uninterrupted.provenance["texts_hash"] == open_corpus(settings.corpus).hash


def test_a_killed_run_goes_on_with_the_same_losses(uninterrupted: records.Record) -> None:
    folder = train.work_folder(TRAINING, open_corpus(TRAINING.settings().corpus))
    process = start("-c", SCRIPT)
    deadline = time.monotonic() + 240
    while pretrain_steps(folder) < 10 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pretrain_steps(folder) >= 10, "the run was over, or never began, before it could be killed"
    assert run_spec.find(TRAINING) is None
    # As if the kill had come while a checkpoint was written.
    (folder / "checkpoint-39").mkdir()
    (folder / "checkpoint-39" / "trainer_state.json").write_text("{")

    assert "taken up again after step" in finish(start("-c", SCRIPT))
    again = read().values
    # Batches in another order would differ in the first digit after the point.
    assert close(again["losses"], uninterrupted.values["losses"], 2e-4)
    assert [point["step"] for point in again["curve"]] == [point["step"] for point in uninterrupted.values["curve"]]
    assert close(again["final"], uninterrupted.values["final"], 1e-3)
    assert not folder.exists(), "checkpoints of a finished run are of no use"


def pretrain_steps(folder: Path) -> int:
    """The newest whole checkpoint, looked at without removing others."""
    steps = [int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/whole")]
    return max(steps, default=0)


def close(ours: Any, theirs: Any, tolerance: float) -> bool:
    return not list(records.differences(ours, theirs, tolerance))


def test_two_processes_train_the_same_model(uninterrupted: records.Record) -> None:
    finish(start("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "firsttoken.cli", "pretrain", "smoke",
                 "-p", "length", "64", "-p", "masking", "intra_document", "-p", "bos", "fixed"))  # fmt: skip
    assert close(read().values["losses"], uninterrupted.values["losses"], 0.01)


def test_the_trained_model_is_kept_and_loads_like_any_other(uninterrupted: records.Record) -> None:
    folder = train.kept_folder(TRAINING)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == uninterrupted.values["weights"]
    lm = models.load(str(folder), dtype="float32", device="cpu")
    assert lm.prefix("auto") == [BOS]
    assert lm.model.config.num_hidden_layers == 2


def test_a_record_answers_the_same_question_only(
    uninterrupted: records.Record, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write(uninterrupted)
    capsys.readouterr()
    assert train.measure(TRAINING, reference=False) == uninterrupted
    assert "steps of" not in capsys.readouterr().out
    other = replace(TRAINING, learning_rate=1e-3)
    assert other.slug != TRAINING.slug
    assert other.provenance()["fingerprint"] != TRAINING.provenance()["fingerprint"]
    assert run_spec.find(other) is None


@pytest.mark.parametrize("name", list(budgets.BUDGETS))
def test_tokens_a_step_do_not_depend_on_length_or_processes(name: str) -> None:
    settings = budgets.budget(name)
    for length in (*settings.lengths, settings.length):
        for processes in (1, 2, 4):
            rows, accumulated = train.share(settings, length, processes)
            assert rows * accumulated * processes * length == settings.tokens_per_step
            assert rows * length <= settings.batch_tokens


@pytest.mark.parametrize("name", list(budgets.BUDGETS))
def test_budgets_count_weights_and_operations(name: str) -> None:
    budget = budgets.budget(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(budget.config(256))
    assert model.num_parameters() == budget.parameters
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    attention = budget.layers * 4 * budget.width * 256 / 2  # scores and weighted values, half a window on average
    assert budget.flops_per_token(256) == pytest.approx(3 * (2 * matrices + attention))


def test_the_records_that_there_are_still_answer() -> None:
    """What later fields add to a training is left out where it is as it was before them."""
    stored = [records.read(path) for path in sorted((ROOT / "results" / train.CLAIM).glob("*.json"))]
    stored = [record for record in stored if "source" in record.parameters]  # the oldest do not say it
    assert stored
    for record in stored:
        asked = dict(record.parameters)
        training = Training(**{**asked, "packing": Packing(**asked["packing"])})
        assert training.told() == asked
        assert training.provenance()["fingerprint"] == record.provenance["model"]["fingerprint"]
    half = Training("cpu", Packing(256, loss="second_half"))
    assert half.told()["packing"]["loss"] == "second_half"
    assert half.provenance()["fingerprint"] != Training("cpu", Packing(256)).provenance()["fingerprint"]


def test_every_probe_step_is_a_step() -> None:
    for steps in (20, 40, 2500, 10_000):
        chosen = train.probe_steps(steps)
        assert min(chosen) >= 1
        assert max(chosen) == steps
        assert len(chosen) >= 15


def test_a_run_from_a_command_line() -> None:
    asked = {
        "length": "64",
        "masking": "intra_document",
        "bos": "fixed",
        "eos": "no",
        "learning_rate": "1e-3",
        "seed": "2",
    }
    packing = Packing(64, "intra_document", "fixed", eos=False)
    assert from_command_line("smoke", asked) == Training("smoke", packing, 2, learning_rate=1e-3)
    with pytest.raises(FirstTokenError, match="no parameter width; it has bos, "):
        from_command_line("smoke", {"width": "64"})
    with pytest.raises(FirstTokenError, match="seed is of type int"):
        from_command_line("smoke", {"seed": "two"})


@pytest.mark.parametrize(
    ("training", "says"),
    [
        (Training("huge"), "There is no budget 'huge'"),
        (Training("smoke", Packing(length=96)), "no whole number of windows of 96"),
        (Training("smoke", tokens=4096), "2 steps; train for 20"),
    ],
)
def test_bad_input_is_one_sentence(training: Training, says: str) -> None:
    with pytest.raises(FirstTokenError, match=says):
        training.settings()


def test_processes_that_cannot_share_a_step() -> None:
    with pytest.raises(FirstTokenError, match="cannot be shared among 3 processes"):
        train.share(budgets.budget("smoke"), 64, 3)


def test_slugs_tell_runs_apart() -> None:
    packing = Packing(64)
    runs = [
        Training("smoke", packing),
        Training("smoke", replace(packing, bos="fixed")),
        Training("smoke", replace(packing, masking="intra_document")),
        Training("smoke", replace(packing, eos=False)),
        Training("smoke", replace(packing, reset_positions=True)),
        Training("smoke", replace(packing, loss="second_half")),
        Training("smoke", packing, seed=1),
        Training("smoke", packing, weight_decay=0.0),
        Training("smoke", packing, least=256),
        Training("smoke", packing, tokens=81_920),
        Training("smoke", packing, source="python-functions"),
    ]
    assert len({run.slug for run in runs}) == len(runs)
    assert json.dumps([run.provenance() for run in runs])


def test_a_long_run_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(train, "EVERY", 0.0)
    training = Training("smoke", Packing(64), tokens=61_440)
    train.train(training, open_corpus(training.settings().corpus), said.append)
    assert len(said) == 31
    assert said[0].endswith("30 steps of 2048 tokens, 127296 weights")
    assert "step 30 of 30, 0 s left" in said[-1]
