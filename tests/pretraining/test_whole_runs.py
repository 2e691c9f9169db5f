"""Runs for which a card is there for minutes: begun only where they fit, spared where they are not needed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firsttoken import cli, records
from firsttoken.claims.context_length import without_bos
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import queue, train, whole_runs
from firsttoken.pretraining.corpora import open_corpus
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record
from firsttoken.records.provenance import machine

RUNS = [Training("smoke", Packing(64, "causal", "fixed"), seed, tokens=40_960, source="generated") for seed in (0, 1)]


def none(training: Training) -> str:
    return ""


def test_only_what_fits_is_begun_and_calls_add_up(store: Path) -> None:
    said: list[str] = []
    needs = {RUNS[0]: 400.0, RUNS[1]: 10.0}
    left = whole_runs.run(RUNS, 5, none, seconds=needs.get, say=said.append)
    assert left == [RUNS[0]]
    assert "not begun, it takes about 6 min 40 s" in said[0]
    assert said[-1] == f"{RUNS[1].slug}: done"
    said.clear()
    assert whole_runs.run(RUNS, 0.02, none, seconds=lambda training: None, say=said.append) == [RUNS[0]]
    assert "halted" in said[-1]
    said.clear()
    assert whole_runs.run(RUNS, 5, none, say=said.append) == []
    assert said[-1] == f"{RUNS[0].slug}: done"
    assert whole_runs.run(RUNS, 5, none, say=said.append) == []


def test_what_is_spared_is_not_left(store: Path) -> None:
    said: list[str] = []
    assert whole_runs.run(RUNS, 1, lambda training: "a gate is closed", say=said.append) == []
    assert said == [f"{run.slug}: not trained: a gate is closed" for run in RUNS]


def fails(training: Training) -> None:
    raise SystemExit("the machine went away")


def starts_a_worker(training: Training) -> None:
    """What reading texts does on a card: training has processes of its own."""
    worker = multiprocessing.get_context("spawn").Process(target=print, args=("worked",))
    worker.start()
    worker.join()
    raise SystemExit(worker.exitcode)


def test_a_run_that_fails_is_named(store: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_runs, "train_in_child", fails)
    with pytest.raises(FirstTokenError, match=f"{RUNS[0].slug} failed"):
        whole_runs.run(RUNS, 3)
    assert "the machine went away" in capfd.readouterr().err
    bad = Training("smoke", Packing(64, "causal", "fixed"), source="no-such-source")
    with pytest.raises(FirstTokenError, match="There is no corpus 'no-such-source'"):
        whole_runs.run([bad], 3)
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(FirstTokenError, match="more than 0 minutes"):
            whole_runs.run(RUNS, minutes)
        with pytest.raises(FirstTokenError, match="more than 0 minutes"):
            queue.run(RUNS, minutes)


def test_a_run_may_have_processes_of_its_own(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_runs, "train_in_child", starts_a_worker)
    said: list[str] = []
    whole_runs.run(RUNS[:1], 3, say=said.append)
    assert said[-1] == f"{RUNS[0].slug}: done"


def test_runs_behind_a_gate_wait_for_it_and_are_left(store: Path) -> None:
    said: list[str] = []
    left = whole_runs.run(
        RUNS, 5, before=lambda one: RUNS[0] if one == RUNS[1] else None, seconds=lambda one: 400.0, say=said.append
    )
    assert left == RUNS
    assert said[-1] == f"{RUNS[1].slug}: waits for {RUNS[0].slug}"
    gate, *behind = without_bos.trainings()
    assert without_bos.before(gate) is None
    assert {without_bos.before(one) for one in behind} == {gate}
    assert without_bos.before(RUNS[0]) is None


def test_a_checkpoint_makes_a_run_shorter(store: Path) -> None:
    corpus = open_corpus(RUNS[0].settings().corpus)
    assert whole_runs.share_left(RUNS[0], corpus) == 1
    steps = RUNS[0].settings().steps
    checkpoint = train.work_folder(RUNS[0], corpus) / f"checkpoint-{steps // 4}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "whole").touch()
    assert whole_runs.share_left(RUNS[0], corpus) == pytest.approx(1 - (steps // 4) / steps)


def test_earlier_runs_on_this_machine_say_how_long_another_takes(store: Path) -> None:
    assert whole_runs.expected_seconds(RUNS[1]) is None
    for name, rate, where in (
        ("a", 2e9, ""),
        ("b", 1e9, ""),
        ("e", 1e8, ""),
        ("c", 1e6, "another machine"),
        ("d", 0.0, ""),
    ):
        provenance = {"model": RUNS[0].provenance(), "machine": where or machine()["machine"]}
        values = {"flops_per_second": rate}
        records.write(Record(train.CLAIM, name, records.recorded(replace(RUNS[0])), values, provenance))
    settings = RUNS[1].settings()
    operations = settings.steps * settings.tokens_per_step * settings.flops_per_token(64)
    assert whole_runs.expected_seconds(RUNS[1]) == pytest.approx(whole_runs.BEGINNING + operations / 1e9)
    (store / "results" / "pretraining" / "damaged.json").write_text("{")
    assert whole_runs.expected_seconds(RUNS[1]) is None
    (store / "results" / "pretraining" / "damaged.json").unlink()
    other = Training("paper", Packing(64, "causal", "fixed"), source="generated")
    assert whole_runs.expected_seconds(other) is None


def test_without_a_card_the_command_says_what_to_do(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["lab", "gpu", "--minutes", "1"]) == 2
    assert "lab cpu" in capsys.readouterr().err


# A card may stand in a machine that has torch, transformers and what they need, and nothing else of what is named in
# pyproject.toml; the project is a folder on the path there.
FEW = """
import importlib.metadata, sys

sys.modules.update(dict.fromkeys({absent}))  # None stands for a package that is not there
version = importlib.metadata.version

def known(name):
    if name.replace("-", "_") in {absent} | {{"firsttoken"}}:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = known
from firsttoken.claims.context_length import without_bos
from firsttoken.claims.packing import measure
from firsttoken.pretraining import train, whole_runs
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training
without_bos.trainings(), measure.trainings("lab-gpu")
record = train.measure(Training("smoke", Packing(64, "causal", "fixed"), tokens=40_960, source="generated"))
print("made", record.filename, record.provenance["packages"].get("firsttoken"))
"""
ABSENT = ("datasets", "gguf", "sentencepiece", "matplotlib", "pandas", "seaborn", "plotly", "papermill", "nbformat",
          "nbclient", "IPython", "ipykernel", "jupyter_book", "sphinx")  # fmt: skip


def test_a_bare_checkout_trains(store: Path) -> None:
    """From nothing: it makes its corpus as well."""
    source = FEW.format(absent=set(ABSENT))
    places = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "FIRSTTOKEN_CACHE": str(store / "empty")}
    environment = {**os.environ, **places}
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, cwd=store, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("None")
    assert RUNS[0].slug in done.stdout
