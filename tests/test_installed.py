"""The package as a user gets it: built, installed into an environment of its own, called from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import firsttoken
from firsttoken.files import ROOT

Call = Callable[..., subprocess.CompletedProcess]
# Of the extras and the tools: what a plain `pip install .` does not bring.
NOT_IN_BASE = ("matplotlib", "plotly", "pandas", "seaborn", "nbformat", "papermill", "nbclient", "submitit", "sphinx")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the built package, and beside it the packages of this one, which are large, without their
    `.pth` files, so that the checkout is not found."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    built = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*built, str(_sources(folder / "sources"))], check=True)
    (wheel,) = folder.glob("*.whl")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(command, check=True)
    place = sysconfig.get_path("purelib", vars={"base": str(folder / "env"), "platbase": str(folder / "env")})
    Path(place, "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Packages that the base install does not bring are not there for it.
    blocker = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"
    Path(place, "sitecustomize.py").write_text(
        "import os\nif os.environ.get('BASE_ONLY'):\n    "
        + blocker.format(names=NOT_IN_BASE).replace("\nsys", "\n    sys")
    )
    return folder / "env"


def _sources(folder: Path) -> Path:
    """What git would hand out, so that building leaves no files in the checkout."""
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "results/paper.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(folder / name)], check=True)
    return folder


def _variables() -> dict[str, str]:
    """The variables of this process without those that lead to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FIRSTTOKEN_RESULTS")}


@pytest.fixture
def call(environment: Path, tmp_path: Path) -> Call:
    """Call a program of that environment in an empty folder."""
    (tmp_path / "empty").mkdir()

    def run(program: str, *arguments: str, base: bool = True) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(environment / "bin" / program), *arguments],
            cwd=tmp_path / "empty",
            env=_variables() | ({"BASE_ONLY": "1"} if base else {}),
            capture_output=True,
            text=True,
        )

    return run


def test_the_installed_copy_is_the_one_that_is_tested(call: Call, environment: Path) -> None:
    done = call("python", "-c", "import firsttoken; print(firsttoken.__file__, firsttoken.__version__)")
    assert done.stdout.startswith(str(environment))
    assert done.stdout.split()[-1] == firsttoken.__version__


def test_models_and_plan_work_from_an_empty_folder(call: Call) -> None:
    assert "smollm2-135m: LlamaForCausalLM" in call("firsttoken", "models").stdout
    done = call("firsttoken", "plan", "smollm2-135m", "--ram", "1")
    assert done.returncode == 0, done.stderr
    assert "streamed" in done.stdout


@pytest.mark.parametrize(
    "command", [["run", "--all"], ["run", "scale"], ["build"], ["chapters"], ["report", "m"], ["verify"]]
)
def test_chapters_need_a_checkout_and_one_sentence_says_so(call: Call, command: list[str]) -> None:
    done = call("firsttoken", *command)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "clone the project" in done.stderr


def test_a_missing_extra_is_one_sentence(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty" / "notebooks").mkdir()
    done = call("firsttoken", "run", "scale")
    assert done.returncode == 2
    assert done.stderr == "This needs nbformat, of the extra book: pip install 'firsttoken[book]'.\n"


def test_a_measurement_is_written_where_the_user_is(call: Call, tmp_path: Path) -> None:
    """With the base install alone; the record says which firsttoken it is from, and no commit of the user's folder."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "empty")], check=True)
    subprocess.run(
        ["git", "-C", str(tmp_path / "empty"), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q",
         "--allow-empty", "-m", "theirs"],
        check=True,
    )  # fmt: skip
    script = """
from firsttoken import models
from firsttoken.claims.sink_rates.measure import MEASUREMENT
record = MEASUREMENT.record(models.load("smollm2-135m"), MEASUREMENT.parameters(passages=2, length=16))
print(record.filename)
"""
    done = call("python", "-c", script)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "empty" / "results" / "local" / "sink_rates").glob("*.json")
    provenance = json.loads(path.read_text())["provenance"]
    assert provenance["packages"]["firsttoken"] == firsttoken.__version__
    assert provenance["commit"] is None


def test_help_is_there_at_once_and_plan_draws_nothing(call: Call) -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        assert call("firsttoken", "--help", base=False).returncode == 0
        after = os.times()
        # Of the processor: on a busy machine the clock says little.
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.5
    watch = "import sys; from firsttoken import cli; {}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    at_help = call("python", "-c", watch.format("cli.parser()"), base=False).stdout.split()
    assert not {"torch", "transformers", "numpy", "nbformat", "yaml", "matplotlib"} & set(at_help)
    at_plan = call("python", "-c", watch.format("cli.main(['plan', 'smollm2-135m'])"), base=False).stdout.split()
    assert "torch" in at_plan
    assert not {"matplotlib", "plotly", "nbformat"} & set(at_plan)


@pytest.fixture
def smoke(environment: Path, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess]:
    """Run the script of a step of the workflow `smoke`, in the base install and without what installs it."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "smoke.yml").read_text(encoding="utf-8"))
    scripts = {step.get("name"): step.get("run", "") for step in workflow["jobs"]["smoke"]["steps"]}
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    variables = _variables() | {"RUNNER_TEMP": str(tmp_path), "PATH": path, "BASE_ONLY": "1"}

    def run(step: str, **more: str) -> subprocess.CompletedProcess:
        lines = [line for line in scripts[step].splitlines() if not line.startswith("pip install")]
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(lines)],
            cwd=ROOT, env=variables | more, capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_the_smoke_workflow_passes(smoke: Callable[..., subprocess.CompletedProcess]) -> None:
    done = smoke("From an empty folder")
    assert done.returncode == 0, done.stderr
    assert "clone the project" in done.stdout
    assert "sink_rate_0.3" in done.stdout
    assert firsttoken.__version__ in done.stdout
    done = smoke("The probe against eager attention", PYTEST_ADDOPTS="--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_attention_probe" in done.stdout
