"""Many runs within some minutes: all are done, in pieces if need be, and one that fails leaves the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from firsttoken import cli
from firsttoken.book import chapters
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import only_trainer, queue, run_spec, train, whole_runs
from firsttoken.pretraining.corpora import open_corpus
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training

RUNS = [Training("smoke", Packing(64, "causal", "fixed"), seed, tokens=40_960, source="generated") for seed in (0, 1)]


def test_short_calls_do_what_a_long_one_does(store: Path) -> None:
    said: list[str] = []
    assert queue.run(RUNS, minutes=0.02, say=said.append) == RUNS, "in a second no run can even begin"
    assert sum("halted" in line for line in said) == len(RUNS)
    assert queue.run(RUNS, minutes=5, say=said.append) == []
    assert {f"{run.slug}: done" for run in RUNS} <= set(said)
    assert all(run_spec.find(run) is not None for run in RUNS)
    said.clear()
    assert queue.run(RUNS, minutes=5, say=said.append) == []
    assert said == []


def test_what_another_process_trains_is_passed_over(store: Path) -> None:
    """Two calls side by side share the runs; one whose trainer was killed can be taken up at once."""
    hold = (
        "import sys, time; from pathlib import Path; from firsttoken.pretraining.only_trainer import only_trainer\n"
        "with only_trainer(Path(sys.argv[1]), 'run'): print('held', flush=True); time.sleep(600)"
    )
    folder = train.work_folder(RUNS[0], open_corpus(RUNS[0].settings().corpus))
    other = subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said: list[str] = []
        assert queue.run(RUNS, minutes=5, say=said.append) == RUNS[:1]
        assert f"{RUNS[0].slug}: passed over, another process trains it" in said
        assert f"{RUNS[1].slug}: done" in said
        assert whole_runs.run(RUNS, minutes=5, say=said.append) == RUNS[:1]
        assert said[-1] == f"{RUNS[0].slug}: passed over, another process trains it"
        with pytest.raises(FirstTokenError, match=f"{RUNS[0].slug} is being trained by another process; wait"):
            train.measure(RUNS[0])
    finally:
        other.kill()
        other.wait()
    assert queue.run(RUNS, minutes=5, say=said.append) == []


def test_a_notebook_shows_every_sentence_without_the_name_of_its_kind() -> None:
    kinds = [FirstTokenError, *FirstTokenError.__subclasses__()]
    assert only_trainer.AlreadyTraining in kinds
    assert {kind.__name__ for kind in kinds} <= set(chapters.SENTENCES)


def test_a_run_that_fails_leaves_the_others(store: Path, capfd: pytest.CaptureFixture) -> None:
    bad = Training("smoke", Packing(64, "causal", "fixed"), source="no-such-source")
    said: list[str] = []
    with pytest.raises(FirstTokenError, match=f"failed, see the lines above: {bad.slug}"):
        queue.run([bad, RUNS[0]], minutes=3, at_once=1, say=said.append)
    assert f"{RUNS[0].slug}: done" in said
    assert "There is no corpus 'no-such-source'" in capfd.readouterr().err


def test_the_command_trains_the_chapters_of_the_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[Training] = []

    def run(trainings: list[Training], minutes: float, at_once: int) -> list[Training]:
        assert (minutes, at_once) == (7, 2)
        asked.extend(trainings)
        return trainings[-1:]

    monkeypatch.setattr(queue, "run", run)
    assert cli.main(["lab", "cpu", "--minutes", "7"]) == 0
    said = capsys.readouterr().out
    assert {run.budget for run in asked} == {"lab", "lab-notes"}
    assert len(asked) == len(set(asked)) == 39
    assert sum(run.design is not None for run in asked) == 14
    assert sum(bool(run.first_penalty or run.replaced) for run in asked) == 6
    assert f"left: {asked[-1].slug}" in said
    assert "firsttoken run packing -p budget lab-notes" in said


@pytest.mark.parametrize("asked", [{"minutes": 0}, {"minutes": 5, "at_once": 0}])
def test_numbers_that_make_no_sense(asked: dict[str, float]) -> None:
    with pytest.raises(FirstTokenError, match="more than 0 minutes"):
        queue.run(RUNS, **asked)  # type: ignore[arg-type]
