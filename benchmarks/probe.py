"""What the probe costs: time and memory beside plain and eager attention, as ratios within one run.

    python benchmarks/probe.py                      # bundled models, T = 1024 and 4096, then one passage of 32768
    python benchmarks/probe.py --record             # also write the record that the book shows

Times are the smallest of several runs of the decoder, the ways taking turns; peak memory is measured in a process of
its own for each way, over what the loaded model takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from firsttoken import estimates, models, records, texts
from firsttoken.probe import probe

WAYS = ("sdpa", "probe", "probe with entropy", "eager")
LONG = 32768


def context(model: Any, way: str) -> AbstractContextManager[Any]:
    """What to run the model inside of."""
    if way == "probe":
        return probe(model, keys=[0])
    if way == "probe with entropy":
        return probe(model, keys=[0], entropy=True)
    model.set_attn_implementation("eager" if way == "eager" else "sdpa")
    return nullcontext()


def forward(lm: models.LanguageModel, ids: torch.Tensor, way: str) -> float:
    """Seconds of one forward pass of the decoder."""
    with torch.inference_mode(), context(lm.model, way):
        start = time.perf_counter()
        lm.model.get_decoder()(ids, use_cache=False, output_attentions=way == "eager")
        return time.perf_counter() - start


def times(lm: models.LanguageModel, length: int, repeats: int) -> dict[str, float]:
    """The fastest of `repeats` passes for each way; the ways take turns, so that a slow moment hits all of them."""
    ids = texts.windows(lm, texts.long_text(), length, 1)
    ways = WAYS if length <= 1024 else WAYS[:3]  # the eager map of all layers is 30 GB at 4096 tokens
    best = dict.fromkeys(ways, float("inf"))
    for repeat in range(repeats + 1):
        for way in ways:
            seconds = forward(lm, ids, way)
            if repeat:  # the first round warms up
                best[way] = min(best[way], seconds)
    return best


def peak_gigabytes(name: str, length: int, way: str) -> dict[str, float]:
    """Peak memory of one pass over that of the loaded model, and its seconds, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, str(length), way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def child(name: str, length: int, way: str) -> None:
    lm = models.load(name, device="cpu")
    ids = texts.windows(lm, texts.long_text(), length, 1)
    with torch.inference_mode():
        lm.model.get_decoder()(ids[:, :16], use_cache=False)  # pages the weights in
    # Loading peaks higher than a short forward pass does: forget its peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    seconds = forward(lm, ids, way)
    peak = resident("VmHWM")
    print(json.dumps({"gigabytes": peak - before, "total_gigabytes": peak, "seconds": seconds}))


def resident(kind: str) -> float:
    """Resident memory of this process in GB, now (`VmRSS`) or at most so far (`VmHWM`); Linux only."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return int(line.split()[1]) * 1024 / 1e9


def measure(lm: models.LanguageModel, repeats: int) -> Callable[[], estimates.JSON]:
    def run() -> estimates.JSON:
        values: estimates.JSON = {}
        for length in (1024, 4096):
            seconds = times(lm, length, repeats)
            ratios = {way.replace(" ", "_"): seconds[way] / seconds["sdpa"] for way in seconds}
            memory = {way.replace(" ", "_"): peak_gigabytes(lm.name, length, way)["gigabytes"] for way in seconds}
            values[f"T{length}"] = {"sdpa_seconds": seconds["sdpa"], "time_ratio": ratios, "peak_gigabytes": memory}
            print(f"T = {length}: {values[f'T{length}']}", flush=True)
        values["long"] = {"length": LONG, **peak_gigabytes(lm.name, LONG, "probe")}
        print(f"T = {LONG}: {values['long']}", flush=True)
        return values

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write results/local/benchmark_probe/<model>.json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]), args.child[2])
        return
    lm = models.load(args.model, device="cpu")
    if not args.record:
        measure(lm, args.repeats)()
        return
    records.reuse_or_measure(
        "benchmark_probe",
        model=lm,
        parameters={"repeats": args.repeats},
        texts_hash=texts.texts_hash([texts.long_text()]),
        measure=measure(lm, args.repeats),
        fresh=True,
    )


if __name__ == "__main__":
    main()
