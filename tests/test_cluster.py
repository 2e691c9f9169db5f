"""The launcher on this machine: two workers, isolated runs, a retry, one failing model, taken up again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from firsttoken import cluster
from firsttoken.cluster import Where, launch, models_in, plan_runs
from firsttoken.errors import FirstTokenError
from firsttoken.records import ROOT
from test_chapters import notebook

# A model named bad always fails; one named flaky fails the first time. Each leaves a mark for each attempt.
CELL = """
from pathlib import Path
marks = Path(folder)
attempt = len(list(marks.glob(model + ".*")))
(marks / f"{model}.{attempt}").touch()
if model == "bad" or (model == "flaky" and attempt == 0):
    raise ValueError(f"{model} does not work")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "marks").mkdir()
    notebook(tmp_path, "works", CELL, parameters='model: str = "m"\nfolder: str = ""\n')
    return tmp_path


def attempts(root: Path) -> dict[str, int]:
    names = [mark.name.split(".")[0] for mark in (root / "marks").iterdir()]
    return {name: names.count(name) for name in sorted(set(names))}


def test_one_failing_model_leaves_the_others(root: Path, capsys: pytest.CaptureFixture) -> None:
    runs = plan_runs("good,bad,flaky", ["works"], {"folder": str(root / "marks")}, root)
    outcome = launch(runs, Where(workers=2, retries=1), root / "logs")
    assert outcome["works of good"] is None
    assert outcome["works of flaky"] is None
    assert "bad does not work" in str(outcome["works of bad"])
    assert attempts(root) == {"bad": 2, "flaky": 2, "good": 1}
    pages = sorted(path.relative_to(root / "book" / "models") for path in (root / "book").rglob("01-works.ipynb"))
    assert pages == [Path("bad/.failed/01-works.ipynb"), Path("flaky/01-works.ipynb"), Path("good/01-works.ipynb")]
    assert (root / "book" / "models" / "good" / "index.md").exists()
    assert "is tried again" in capsys.readouterr().out

    # The same command again: only what is missing runs.
    launch(runs, Where(workers=2, retries=0), root / "logs")
    assert attempts(root) == {"bad": 3, "flaky": 2, "good": 1}

    # Other parameters are another question.
    (other,) = plan_runs("good", ["works"], {"folder": str(root)}, root)
    assert not other.is_done()


def interrupted(root: Path, where: dict[str, Any]) -> str:
    """What a launch prints that gets Ctrl-C while its job runs; the job leaves its process number in marks/slow."""
    cell = (
        "import os, time\nfrom pathlib import Path\nPath(folder, model).write_text(str(os.getpid()))\ntime.sleep(90)"
    )
    notebook(root, "waits", cell, parameters='model: str = "m"\nfolder: str = ""\n')
    script = f"""
import signal
from pathlib import Path
from firsttoken.cluster import Where, launch, plan_runs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background may be deaf to it
root = Path({str(root)!r})
launch(plan_runs("slow", ["waits"], {{"folder": str(root / "marks")}}, root), Where(**{where}), root / "logs")
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    mark, deadline = root / "marks" / "slow", time.monotonic() + 120
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline, "the job never ran"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode
    return out


def test_jobs_on_this_machine_end_with_the_launcher(root: Path) -> None:
    interrupted(root, {"workers": 1})
    job, deadline = Path("/proc", (root / "marks" / "slow").read_text()), time.monotonic() + 30
    while job.exists():
        assert time.monotonic() < deadline, "the job goes on"
        time.sleep(0.2)


def test_models_of_a_family_file() -> None:
    files = sorted((ROOT / "notebooks" / "families").glob("*.yml"))
    assert len(files) == 4
    for file in files:
        found = models_in(str(file))
        assert len(found) >= 3
        assert all(name.count("/") == 1 for name in found)
    assert models_in("a, b") == ["a", "b"]
    with pytest.raises(FirstTokenError, match="There is no file"):
        models_in("none.yml")


def test_a_chapter_without_a_model_is_refused(root: Path) -> None:
    notebook(root, "prose", parameters="n: int = 1\n")
    with pytest.raises(FirstTokenError, match="prose has no parameter model"):
        plan_runs("a", ["works", "prose"], {}, root)


def test_slurm_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FirstTokenError, match="There is no SLURM here"):
        launch([], Where(slurm=True), tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(FirstTokenError, match=r"pip install 'firsttoken\[cluster\]'"):
        cluster.launch([], Where(), tmp_path)


def test_notebooks_have_no_outputs() -> None:
    for cell in nbformat.read(ROOT / "notebooks" / "scale.ipynb", as_version=4).cells:
        assert not cell.get("outputs")
