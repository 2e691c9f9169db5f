"""The launcher on this machine: two workers, isolated runs, a retry, one failing model, taken up again."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

from firsttoken.book import cluster
from firsttoken.book.cluster import Where, launch, models_in, plan_runs
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from small_book import attempts, interrupted, launchable, notebook


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return launchable(tmp_path)


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


def test_jobs_on_this_machine_end_with_the_launcher(root: Path) -> None:
    interrupted(root, {"workers": 1})
    job = Path("/proc", (root / "marks" / "slow").read_text())
    assert not job.exists(), "the job goes on"


def test_models_of_a_family_file() -> None:
    files = sorted((ROOT / "notebooks" / "families").glob("*.yml"))
    assert len(files) == 4
    for file in files:
        names = models_in(str(file))
        assert len(names) >= 3
        assert all(name.count("/") == 1 for name in names)
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
