"""Chapters x models as separate jobs, on this machine or on SLURM, through submitit.

    firsttoken cluster notebooks/families/pythia.yml --chapter sink_rates --chapter scale --slurm --gpus 1

One job measures one model for one chapter and executes the page, `book/models/<model>/`. A job that fails is tried
again and then left; the others go on. A second call of the same command takes up what is missing: finished pages are
kept, finished measurements are records, and a streamed pass has the state after its last layer.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from firsttoken.book import addresses, build, chapters
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.parameters import names_in
from firsttoken.ranges import between

# Seconds that a cancelled job of this machine is waited for.
_PATIENCE = 30
_RAISED = re.compile(r"^[\w.]+(?:Error|Exception|Exit|Interrupt): .*$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One chapter for one model: what one job does."""

    chapter: str
    model: str
    values: Mapping[str, Any]
    out: Path
    root: Path = ROOT

    @property
    def name(self) -> str:
        return f"{self.chapter} of {self.model}"

    def __call__(self) -> str:
        """Execute the chapter; called by submitit in the job's own process."""
        if not self.is_done():
            chapters.run_chapter(self.chapter, {**self.values, "model": self.model}, self.out, self.root)
        return str(self.out)

    def is_done(self) -> bool:
        """Whether the page exists and belongs to the notebook as it is now and to these parameters."""
        if not self.out.exists() or not build.is_current(self.out, self.chapter, self.root):
            return False
        ran = nbformat.read(self.out, as_version=4).metadata.papermill.get("asked")
        return bool(ran == addresses.asked({**self.values, "model": self.model}))


@dataclass(frozen=True)
class Where:
    """Where jobs run, how many at once, and how often a failed one is tried."""

    slurm: bool = False
    workers: int = 2
    retries: int = 1
    hours: int = 12
    gpus: int = 0  # for each job; on this machine, worker i gets the i-th group of them
    cpus: int = 8
    memory: int = 64  # GB
    partition: str = ""

    def __post_init__(self) -> None:
        between(1, 10_000, workers=self.workers, hours=self.hours, cpus=self.cpus)
        between(0, 10_000, retries=self.retries, gpus=self.gpus)
        between(1, 1_000_000, memory=self.memory)


def models_in(source: str) -> list[str]:
    """Model names from a parameter file with `model: a,b,c` (see notebooks/families), or the names themselves."""
    path = Path(source)
    if path.suffix in (".yml", ".yaml"):
        if not path.is_file():
            raise FirstTokenError(f"There is no file {source}; see notebooks/families for examples.")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        source = content.get("model", "") if isinstance(content, dict) else ""
    names = names_in(source)
    if not names:
        raise FirstTokenError(f"{path} names no model; write `model: first,second`.")
    return names


def plan_runs(
    source: str, names: Sequence[str], asked: Mapping[str, str] | None = None, root: Path = ROOT
) -> list[Run]:
    """Every chapter for every model, with the further parameters that each chapter declares."""
    values = chapters.choose({**(asked or {}), "model": "-"}, names, root)
    if without := [name for name in names if "model" not in values[name]]:
        raise FirstTokenError(f"{', '.join(without)} has no parameter model; leave it out.")
    models = models_in(source)
    addresses.refuse_shared_addresses(models)
    position = {name: i for i, name in enumerate(chapters.chapters(root), 1)}
    return [
        Run(
            name,
            model,
            {key: value for key, value in values[name].items() if key != "model"},
            root / "book" / "models" / addresses.address(model) / f"{position[name]:02d}-{name}.ipynb",
            root,
        )
        for model in models
        for name in names
    ]


def launch(runs: Sequence[Run], where: Where, logs: Path) -> dict[str, str | None]:
    """Run all, `where.workers` at once, each in its own process, and wait. Jobs here end with this process; those of
    SLURM stay in its queue when this is interrupted.

    Returns:
        {name of the run: None, or its error in one line}

    Raises:
        FirstTokenError: submitit is not installed, SLURM is asked for on a machine without it, or refuses the jobs.
    """
    executor = _executor(where, logs)
    waiting = [(run, where.retries) for run in runs if not run.is_done()]
    outcome: dict[str, str | None] = dict.fromkeys((run.name for run in runs), None)
    # SLURM has a queue of its own; submitit's local executor starts whatever it is given at once.
    free = list(range(len(waiting) if where.slurm else where.workers))
    running: list[_Job] = []
    try:
        while waiting or running:
            while waiting and free:
                run, retries = waiting[0]
                if not where.slurm:
                    first = free[0] * where.gpus
                    executor.update_parameters(visible_gpus=range(first, first + where.gpus))
                try:
                    job = _submit(executor, run)
                except FirstTokenError:
                    if not running:
                        raise
                    break  # there is a limit on a person's jobs; one that ends makes room
                waiting.pop(0)
                running.append(_Job(run, retries, free.pop(0), job))
                _say(f"{run.name}: submitted as job {job.job_id}")
            for ended in [entry for entry in running if entry.job.done()]:
                running.remove(ended)
                free.append(ended.slot)
                error = _error(ended.job)
                if error is not None and ended.retries > 0:
                    _say(f"{ended.run.name}: failed, is tried again ({error})")
                    waiting.append((ended.run, ended.retries - 1))
                    continue
                outcome[ended.run.name] = error
                _say(f"{ended.run.name}: {'done' if error is None else f'failed ({error})'}")
            time.sleep(2 if where.slurm else 0.2)
    except KeyboardInterrupt:
        _leave(running, where.slurm)
        raise
    for folder, model in {run.out.parent: run.model for run in runs}.items():
        chapters.write_index(model, folder)
    return outcome


@dataclass(frozen=True)
class _Job:
    run: Run
    retries: int  # left
    slot: int
    job: Any  # submitit's


def _submit(executor: Any, run: Run) -> Any:
    """submitit's job; an error in the words of sbatch where SLURM takes none."""
    import submitit

    try:
        # submitit repeats what sbatch says.
        with contextlib.redirect_stderr(io.StringIO()):
            return executor.submit(run)
    except submitit.core.utils.FailedJobError as error:
        lines = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines) or "sbatch gives no reason"
        raise FirstTokenError(f"SLURM refuses the job: {reason}.") from None


def _error(job: Any) -> str | None:
    """What went wrong in one line; None if nothing did."""
    import submitit

    error = job.exception()
    if error is None:
        return None
    if not isinstance(error, submitit.core.utils.FailedJobError):
        return f"its process was ended from outside ({job.state}), see {job.paths.stderr}"
    # submitit gives the traceback of the job's process as text, with advice around it.
    raised = _RAISED.findall(str(error))
    return raised[-1].removeprefix("firsttoken.errors.FirstTokenError: ") if raised else type(error).__name__


def _leave(running: Sequence[_Job], slurm: bool) -> None:
    if not slurm:
        for entry in running:
            entry.job.cancel()
        deadline = time.monotonic() + _PATIENCE
        while alive := [entry for entry in running if not entry.job.done()]:
            if time.monotonic() > deadline:
                _say(f"Still running: {', '.join(entry.run.name for entry in alive)}.")
                break
            time.sleep(0.1)
    elif running:
        numbers = " ".join(entry.job.job_id for entry in running)
        _say(
            f"SLURM goes on with what was submitted: `scancel {numbers}` ends it; repeat this command only when "
            "`squeue --me` no longer lists it."
        )


def _executor(where: Where, logs: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise FirstTokenError("The launcher needs one more package: pip install 'firsttoken[cluster]'.") from None
    if not where.slurm:
        local = submitit.LocalExecutor(folder=logs, python=sys.executable)
        local.update_parameters(timeout_min=60 * where.hours, gpus_per_node=where.gpus)
        return local
    if not _answers("sbatch", "--version"):
        raise FirstTokenError("There is no SLURM here (no command sbatch); leave out --slurm to run on this machine.")
    if not _answers("sacct"):
        _say(
            "This SLURM keeps no accounts (sacct fails), so a job that SLURM itself ends is not noticed here: look at "
            "`squeue --me`."
        )
        # It would say so with every look.
        logging.getLogger("submitit").setLevel(logging.ERROR)
    slurm = submitit.SlurmExecutor(folder=logs, python=sys.executable)
    slurm.update_parameters(
        job_name="firsttoken",
        time=60 * where.hours,
        gpus_per_node=where.gpus or None,
        cpus_per_task=where.cpus,
        mem=f"{where.memory}GB",
        **({"partition": where.partition} if where.partition else {}),
    )
    return slurm


def _answers(*command: str) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


def _say(line: str) -> None:
    print(line, flush=True)
