"""The command line, `firsttoken COMMAND`: the options of each command, and what becomes of an error in one.

A `FirstTokenError` becomes one line on stderr. What the commands do stands in `commands`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from firsttoken import commands
from firsttoken.errors import FirstTokenError
from firsttoken.files import needs_checkout

# The extra of this package that brings a module which the base install does not have.
_EXTRAS = {
    **dict.fromkeys(("nbformat", "nbclient", "papermill", "jupyter_book"), "book"),
    **dict.fromkeys(("matplotlib", "cycler", "plotly", "pandas", "seaborn"), "plots"),
    "datasets": "datasets",
    "submitit": "cluster",
}


def parser() -> argparse.ArgumentParser:
    """The argument parser, with one subparser for each command."""
    top = argparse.ArgumentParser(prog="firsttoken", description="An executable book on attention sinks.")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: object, in_checkout: bool = False) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=function.__doc__, description=function.__doc__)
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

    run = add("run", commands.command_run, in_checkout=True)
    run.add_argument("chapter", nargs="*", metavar="CHAPTER")
    run.add_argument("--all", action="store_true", help="every chapter")
    run.add_argument("--model", help="short for -p model MODEL")
    add_parameters(run)

    build = add("build", commands.command_build, in_checkout=True)
    build.add_argument("-q", "--quiet", action="store_true", help="only warnings")
    build.add_argument("--pdf", action="store_true", help="print the whole book into one PDF instead")

    report = add("report", commands.command_report, in_checkout=True)
    report.add_argument("model", metavar="MODEL", help="hub id, folder, .gguf file or bundled name")
    report.add_argument("chapter", nargs="*", metavar="CHAPTER", help="only these chapters")
    report.add_argument("--practice", action="store_true", help="only the chapters on serving a model")
    report.add_argument("--quick", action="store_true", help="a first look: fewer and shorter texts, no verdicts")
    add_parameters(report)

    jobs = add("cluster", commands.command_cluster, in_checkout=True)
    jobs.add_argument("models", metavar="MODELS", help="names separated by commas, or a file of notebooks/families")
    jobs.add_argument("--chapter", action="append", help="may be given several times; sink_rates if not given")
    jobs.add_argument("--slurm", action="store_true", help="submit to SLURM instead of running here")
    for name, help_ in commands.WHERE.items():
        jobs.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, help=help_)
    jobs.add_argument("--partition", default="", help="of SLURM")
    add_parameters(jobs)

    plan = add("plan", commands.command_plan)
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

    lab = add("pretrain", commands.command_pretrain)
    lab.add_argument("budget", metavar="BUDGET", help="smoke, cpu, lab, lab-notes, lab-gpu, gpu or paper")
    lab.add_argument("--fresh", action="store_true", help="train again even if there is a record")
    add_parameters(lab)

    runs = add("lab", commands.command_lab)
    runs.add_argument(
        "queue", choices=["cpu", "gpu"], help="which runs: those for two cores, or those for one graphics card"
    )
    runs.add_argument("--minutes", type=float, required=True, help="runs are halted then and go on the next time")
    runs.add_argument("--at-once", type=int, default=2, help="cpu: runs side by side, with one thread each")

    add("chapters", commands.command_chapters, in_checkout=True)
    add("models", commands.command_models)
    fetched = add("family", commands.command_family)
    fetched.add_argument("name", nargs="*", metavar="NAME", help="only these; see `firsttoken models`")
    verify = add("verify", commands.command_verify, in_checkout=True)
    verify.add_argument("claim", nargs="*", metavar="CLAIM", help="only these; all if none")
    verify.add_argument("--no-variants", action="store_true", help="only the main record of each claim: much sooner")
    verify.add_argument("--without", action="append", default=[], metavar="VARIANT", help="not these, such as long")
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
