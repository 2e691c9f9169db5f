"""Our masks against NVIDIA's kvpress: the same tokens kept in the cache must leave the same loss for every token.

    python3 -m venv /tmp/kvpress-env
    /tmp/kvpress-env/bin/pip install kvpress==0.5.5
    python benchmarks/press.py --python /tmp/kvpress-env/bin/python
    python benchmarks/press.py --python /tmp/kvpress-env/bin/python --record   # also write the record of the book

kvpress needs an older transformers than this project, so it runs in an environment of its own; token numbers and
losses go between the two through a temporary folder. Each text is a context and a continuation. kvpress reads the
context, cuts the cache once (StreamingLLMPress, with sinks and without; KeyRerotationPress renumbers) and reads the
continuation with what is left. We do it in one masked pass over the whole text. Goal: no token's loss differs by more
than 0.001 nats.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from firsttoken import estimates, models, records, statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.measures.cache_masks import Policy, Pruning, evicting, pruned_once
from firsttoken.probe import probe
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import predict

CHILD = Path(__file__).with_name("press_child.py")
Theirs = tuple[dict[str, Tensor], dict[str, str]]  # losses by setting, versions by package


@dataclass(frozen=True)
class Comparison:
    """`windows` texts of `context` + `continuation` tokens, cut from one long document; `kept` tokens of each context
    stay in the cache, of which `sinks` are the first."""

    windows: int = 8
    context: int = 384
    continuation: int = 128
    kept: int = 128
    sinks: int = 4

    def check(self) -> None:
        """Raises `FirstTokenError` where nothing would be cut or read."""
        if not 0 < self.sinks < self.kept < self.context or self.continuation < 2 or self.windows < 2:
            raise FirstTokenError(
                "Give 0 < sinks < kept < context, two tokens of continuation and two windows at least."
            )


def with_kvpress(python: str, lm: models.LanguageModel, ids: Tensor, comparison: Comparison) -> Theirs:
    """Losses by setting, (text, query), and the versions of the packages, from an environment with kvpress.

    Raises:
        FirstTokenError: `python` cannot be run, or has no kvpress.
    """
    remedy = f"see the head of {Path(__file__).name} for how to make an environment with kvpress"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "ids.npy", ids.numpy())
        task = asdict(comparison) | {"model": str(lm.local_folder()), "threads": torch.get_num_threads()}
        (folder / "task.json").write_text(json.dumps(task))
        # -I: neither PYTHONPATH nor this folder may lend the other environment our packages.
        try:
            done = subprocess.run([python, "-I", str(CHILD), name], capture_output=True, text=True)
        except OSError as error:
            raise FirstTokenError(f"{python} cannot be run ({error.strerror}); {remedy}.") from error
        if done.returncode or not (folder / "versions.json").exists():
            why = (done.stderr.strip().splitlines() or ["it wrote no losses"])[-1]
            raise FirstTokenError(f"{python} could not run kvpress ({why}); {remedy}.")
        with np.load(folder / "losses.npz") as arrays:
            losses = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return losses, json.loads((folder / "versions.json").read_text())


def with_masks(lm: models.LanguageModel, ids: Tensor, comparison: Comparison) -> dict[str, Tensor]:
    """Losses by setting, (text, query), each in one masked pass over whole texts.

    The first four are kvpress's. `each_token` throws away at every token, from the beginning of the text on, and never
    holds more than `kept` tokens, whereas a cache that is cut once grows again.
    """
    context, kept, sinks = comparison.context, comparison.kept, comparison.sinks
    hooks: dict[str, Hook | None] = {
        "full": None,
        "window": pruned_once(lm.model, Pruning(context, kept)),
        "sinks": pruned_once(lm.model, Pruning(context, kept, sinks)),
        "sinks_renumbered": pruned_once(lm.model, Pruning(context, kept, sinks, "cache")),
        "window_each_token": evicting(lm.model, Policy(kept)),
        "sinks_each_token": evicting(lm.model, Policy(kept, "sinks", sinks)),
        "sinks_each_token_renumbered": evicting(lm.model, Policy(kept, "sinks", sinks, "cache")),
    }
    queries = torch.arange(context, ids.shape[1] - 1)
    losses = {}
    for name, hook in hooks.items():
        rows = []
        for row in ids:
            with probe(lm.model, hook=hook):
                rows.append(predict(lm, row[None], queries, top=0).loss[0])
        losses[name] = torch.stack(rows)
    return losses


def measure(python: str, lm: models.LanguageModel, comparison: Comparison) -> estimates.JSON:
    """Values of the record.

    `largest_difference` of any token's loss between kvpress and our masks, in nats, by setting and `over_all`; under
    `kvpress` and `ours`, for each setting the mean `loss` and its `increase` over the full cache of that side, with
    intervals over texts; `kvpress_packages`, their versions; the sizes of the comparison, for the book to quote.
    """
    ids = texts.windows(lm, texts.long_text(), comparison.context + comparison.continuation, comparison.windows)
    theirs, versions = with_kvpress(python, lm, ids, comparison)
    ours = with_masks(lm, ids, comparison)
    apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours if name in theirs}
    values: estimates.JSON = asdict(comparison) | {"kvpress_packages": versions, "tokens": theirs["full"].numel()}
    for side, losses in (("kvpress", theirs), ("ours", ours)):
        means = {name: by_token.double().mean(1) for name, by_token in losses.items()}
        values[side] = {
            name: {
                "loss": asdict(statistics.bootstrap(by_text)),
                "increase": asdict(statistics.bootstrap(by_text - means["full"])),
            }
            for name, by_text in means.items()
        }
    values["largest_difference"] = apart | {"over_all": max(apart.values())}
    return values


def show(values: estimates.JSON) -> None:
    """The values as lines of text."""
    print(f"kvpress's packages: {values['kvpress_packages']}; {values['tokens']} losses for each setting")
    for side in ("kvpress", "ours"):
        for name, of_setting in values[side].items():
            loss, increase = (
                estimates.interval(of_setting["loss"], ".4f"),
                estimates.interval(of_setting["increase"], "+.4f"),
            )
            apart = values["largest_difference"].get(name)
            same = f", largest difference {apart:.1e}" if side == "ours" and apart is not None else ""
            print(f"{side:8} {name:28} {loss}, over the full cache {increase}{same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the Python of an environment with kvpress")
    parser.add_argument("--model", default="smollm2-135m", help="a Llama, Mistral, Phi3 or Qwen, as kvpress wants")
    for name, value in asdict(Comparison()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--record", action="store_true", help="write results/local/benchmark_press/<model>.json")
    args = parser.parse_args()
    comparison = Comparison(args.windows, args.context, args.continuation, args.kept, args.sinks)
    try:
        comparison.check()
        lm = models.load(args.model, device="cpu", dtype="float32")
        if not args.record:
            show(measure(args.python, lm, comparison))
            return
        record = records.reuse_or_measure(
            "benchmark_press",
            model=lm,
            parameters=records.recorded(comparison),
            texts_hash=texts.texts_hash([texts.long_text()]),
            measure=lambda: measure(args.python, lm, comparison),
            fresh=True,
        )
        show(record.values)
    except FirstTokenError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
