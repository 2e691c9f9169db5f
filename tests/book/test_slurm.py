"""The launcher on a real SLURM of one node, which these tests start and stop; it needs no account and no root."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from firsttoken.book.cluster import Where, launch, plan_runs
from firsttoken.errors import FirstTokenError
from small_book import attempts, interrupted, launchable

pytestmark = pytest.mark.skipif(
    not (shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") and sys.platform == "linux"),
    reason="needs SLURM: apt-get install slurm-wlm",
)

SMALL = {"slurm": True, "cpus": 1, "memory": 1, "hours": 1}
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
EnforcePartLimits=ANY
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return launchable(tmp_path)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of this machine alone; its folder."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        controller, node = one.getsockname()[1], other.getsockname()[1]
    host = socket.gethostname().split(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=host, controller=controller, node=node, user=user, folder=folder)
    )
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        patch.setenv("SLURM_CONF", str(configuration))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        for daemon in ("slurmctld", "slurmd"):
            with (folder / f"{daemon}.log").open("w") as log:
                process = subprocess.Popen([daemon, "-D"], stdout=log, stderr=log)
            running.callback(process.wait, 30)
            running.callback(process.terminate)
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            logs = "".join((folder / f"{daemon}.log").read_text() for daemon in ("slurmctld", "slurmd"))
            assert time.monotonic() < deadline, f"SLURM did not start: {logs[-2000:]}"
            time.sleep(0.5)
        running.callback(_end_all_jobs)
        yield folder


def _end_all_jobs() -> None:
    def queue() -> list[str]:
        return subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True).stdout.split()

    if jobs := queue():
        subprocess.run(["scancel", *jobs], check=True)
    deadline = time.monotonic() + 60
    while queue() and time.monotonic() < deadline:
        time.sleep(0.5)


@pytest.mark.usefixtures("slurm")
def test_jobs_run_fail_and_are_tried_again(root: Path, capsys: pytest.CaptureFixture) -> None:
    runs = plan_runs("good,bad,flaky", ["works"], {"folder": str(root / "marks")}, root)
    outcome = launch(runs, Where(**SMALL, retries=1), root / "logs")
    assert outcome["works of good"] is None
    assert outcome["works of flaky"] is None
    assert "bad does not work" in str(outcome["works of bad"])
    assert attempts(root) == {"bad": 2, "flaky": 2, "good": 1}
    assert (root / "book" / "models" / "good" / "01-works.ipynb").exists()
    out = capsys.readouterr()
    assert "keeps no accounts" in out.out
    assert "Bypassing" not in out.err
    assert "--job-name=firsttoken" in next((root / "logs").glob("*_submission.sh")).read_text()


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"partition": "none"}, "invalid partition specified: none"),
        ({"gpus": 1}, "Invalid generic resource"),
        ({"memory": 4000}, "Memory specification can not be satisfied"),
    ],
)
def test_what_slurm_refuses_is_one_sentence(
    root: Path,
    asked: dict,
    why: str,
    capfd: pytest.CaptureFixture,
) -> None:
    runs = plan_runs("a,b", ["works"], {"folder": str(root / "marks")}, root)
    with pytest.raises(FirstTokenError, match=f"SLURM refuses the job: .*{why}"):
        launch(runs, Where(**{**SMALL, **asked}), root / "logs")
    assert "sbatch" not in capfd.readouterr().err
    assert attempts(root) == {}


def test_interrupted_it_says_which_jobs_go_on(root: Path, slurm: Path) -> None:
    out = interrupted(root, SMALL)
    told = re.search(r"SLURM goes on with what was submitted: `scancel (\d+)` ends it", out)
    assert told, out
    queue = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True).stdout.split()
    assert queue == [told[1]]
