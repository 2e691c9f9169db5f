"""The command line: one line for what went wrong, exit codes, parameters as typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from firsttoken import claims, cli, parameters
from firsttoken.book import build, chapters
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.pretraining.budgets import BUDGETS
from firsttoken.records.schema import FORMER_CLAIMS
from own_code import with_own_code


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list:
    """Two chapters with declared parameters, and what would be run of them."""
    declared = {
        "alpha": {
            "model": parameters.Parameter("model", "str", '"m"', ""),
            "n": parameters.Parameter("n", "int", "1", ""),
        },
        "beta": {"fresh": parameters.Parameter("fresh", "bool", "False", "")},
    }
    run: list = []
    monkeypatch.setattr(chapters, "chapters", lambda root=None: list(declared))
    monkeypatch.setattr(chapters, "parameters", lambda name, root=None: declared[name])
    monkeypatch.setattr(chapters, "run_chapters", lambda wanted, root=None: run.extend(wanted))
    return run


def test_run_gives_each_chapter_the_parameters_it_declares(jobs: list) -> None:
    assert cli.main(["run", "--all", "--model", "8", "-p", "fresh", "true", "-p", "n", "3"]) == 0
    assert jobs == [("alpha", {"model": "8", "n": 3}, None), ("beta", {"fresh": True}, None)]


def test_run_needs_chapters_or_all(jobs: list, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run"]) == 2
    assert "alpha, beta" in capsys.readouterr().err
    assert cli.main(["run", "alpha", "--all"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "fresk", "true"], "did you mean fresh"),
        (["-p", "fresh", "perhaps"], "type bool"),
        (["-p", "n", "2.5"], "type int"),
    ],
)
def test_a_bad_parameter_is_one_line(
    jobs: list, capsys: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    assert cli.main(["run", "--all", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not jobs


def test_practice_is_the_chapters_for_serving(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked: list = []
    monkeypatch.setattr(
        chapters, "report", lambda model, names, values, quick: asked.append((model, list(names))) or "there"
    )
    assert cli.main(["report", "m", "--practice"]) == 0
    assert asked == [("m", ["kv_cache", "quantisation", "compression", "robustness"])]
    assert cli.main(["report", "m", "kv_cache", "--practice"]) == 2
    assert "not both" in capsys.readouterr().err
    assert len(asked) == 1


def test_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build", interrupted)
    assert cli.main(["build"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_whoever_closes_the_pipe_has_seen_enough() -> None:
    command = [sys.executable, "-m", "firsttoken.cli", "chapters"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 141


def test_an_expected_error_has_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def fail(**options: object) -> None:
        raise FirstTokenError("Not executed yet: alpha; run `firsttoken run alpha` first.")

    monkeypatch.setattr(build, "build", fail)
    assert cli.main(["build"]) == 2
    assert capsys.readouterr().err == "Not executed yet: alpha; run `firsttoken run alpha` first.\n"


def test_unknown_command_is_bad_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["ruin"])
    assert stop.value.code == 2


def test_a_former_name_of_a_chapter_is_taken_with_a_line(
    jobs: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(FORMER_CLAIMS, "first", "alpha")
    assert cli.main(["run", "first", "beta", "-p", "n", "3"]) == 0
    assert jobs == [("alpha", {"n": 3}, None), ("beta", {}, None)]
    assert capsys.readouterr().out == "first is called alpha now.\n"
    asked: list = []
    monkeypatch.setattr(chapters, "report", lambda model, names, values, quick: asked.extend(names) or "there")
    assert cli.main(["report", "m", "first"]) == 0
    assert asked == ["alpha"]


def test_where_is_sink_position() -> None:
    assert claims.present_names(["sink_rates", "where"]) == ["sink_rates", "sink_position"]
    assert set(FORMER_CLAIMS.values()) <= set(claims.names())


def test_plan_runs_a_models_own_code_where_it_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = with_own_code(tmp_path, model_type="mine")
    assert cli.main(["plan", folder]) == 2
    assert "set trust_remote_code" in capsys.readouterr().err
    assert cli.main(["plan", folder, "--trust-remote-code"]) == 0


def test_every_module_that_a_command_names_can_be_run() -> None:
    named: dict[str, set[str]] = {}
    written = [
        ROOT / "README.md",
        ROOT / "Makefile",
        *(ROOT / "book").glob("*.md"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    for path in [*written, *(ROOT / "src").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]:
        for module in re.findall(r"-m (firsttoken(?:\.\w+)*)", path.read_text(encoding="utf-8")):
            named.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    assert {"firsttoken.cli", "firsttoken.torchrun"} <= set(named)
    for module, places in named.items():
        source = ROOT / "src" / Path(*module.split("."))
        file = source / "__main__.py" if source.is_dir() else source.with_suffix(".py")
        assert file.is_file(), f"{module} does not exist; see {places}"
        runs = file.name == "__main__.py" or 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")
        assert runs, f"{module} does nothing when it is run; see {places}"


def test_pretrain_names_every_budget(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    words = re.findall(r"[\w-]+", capsys.readouterr().out)
    assert set(BUDGETS) <= set(words)


def test_a_plan_draws_nothing() -> None:
    source = (
        "import sys; from firsttoken import cli; assert cli.main(['plan', 'smollm2-135m']) == 0; "
        "assert not {'matplotlib', 'pandas', 'plotly'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["model", "way", "read", "peak", "memory", "time", "fits"]
