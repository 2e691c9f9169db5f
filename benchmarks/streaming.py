"""What streaming from disk costs: memory, bytes and read rate, as ratios within one run.

    python benchmarks/streaming.py --size 8            # GB of synthetic random weights; 2 is a smoke run
    python benchmarks/streaming.py --size 8 --record   # also write the record that the book shows
    python benchmarks/streaming.py --size 40 --device cuda --record

A random Llama is written to a temporary folder and read in three ways, each in a process of its own, with the page
cache of its files dropped before: a plain sequential read, the streamed pass, and accelerate's disk offload of the
same passages. How much of it the disk delivered, and not a cache, is counted for each. A matrix product shows how
fast this machine computes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from firsttoken import estimates, models, records
from firsttoken.execution import cost
from firsttoken.execution.streaming import StreamedModel
from firsttoken.models.checkpoint import INDEX, Checkpoint, open_checkpoint
from firsttoken.models.machine import Machine, free_memory
from firsttoken.probe import probe

BLOCK = 8 << 20
# Each way runs in a process of its own, out of one that has imported what all need and done nothing else.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["firsttoken.execution.streaming", "transformers.models.llama.modeling_llama"])


def write_checkpoint(folder: Path, gigabytes: float) -> None:
    """A random bfloat16 Llama of about this size: layers as in LLaMa 3.1 8B, or narrower ones below 4 GB."""
    width, inner = (4096, 14336) if gigabytes >= 4 else (2048, 8192)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=1,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 512,
        dtype="bfloat16",
    )
    one = cost.shape_of(config)
    config.num_hidden_layers = max(
        2, round((gigabytes * 1e9 - one.embedding_bytes - one.head_bytes) / one.layer_bytes)
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config).state_dict()
    torch.manual_seed(0)
    # One block of noise, turned for each tensor: independent noise for every weight would take longer than reading.
    noise = torch.randn(1 << 24).mul_(0.02).bfloat16()
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        group = name.split(".")[2] if ".layers." in name else "outside"
        groups.setdefault(group, {})[name] = tensor
    index = {}
    for number, tensors in enumerate(groups.values(), 1):
        shard = f"model-{number:05}-of-{len(groups):05}.safetensors"
        save_file({name: _noisy(name, tensor, noise) for name, tensor in tensors.items()}, folder / shard)
        index |= dict.fromkeys(tensors, shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _noisy(name: str, meta: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    if meta.dim() == 1:
        return torch.ones(meta.shape, dtype=torch.bfloat16)
    turned = noise.roll(int(torch.randint(len(noise), ()).item()))
    repeats = -(-meta.numel() // len(noise))
    return turned.repeat(repeats)[: meta.numel()].view(meta.shape)


def passages(args: argparse.Namespace) -> torch.Tensor:
    """(text, token); two micro-batches of half the texts each."""
    return torch.randint(0, 32000, (args.texts, args.length), generator=torch.Generator().manual_seed(0))


# -- the four ways, each in a process of its own ------------------------------------------------------------


def read(checkpoint: Checkpoint) -> int:
    """Read every shard, one after the other; how many bytes."""
    block, total = bytearray(BLOCK), 0
    for shard in checkpoint.shards:
        with shard.open("rb", buffering=0) as file:
            while got := file.readinto(block):
                total += got
    return total


def sequential(args: argparse.Namespace) -> estimates.JSON:
    checkpoint = open_checkpoint(args.folder)
    checkpoint.drop_cache()
    start, disk = time.perf_counter(), from_disk()
    total = read(checkpoint)
    return {"bytes": total, "bytes_from_disk": from_disk() - disk, "seconds": time.perf_counter() - start}


def streamed(args: argparse.Namespace) -> estimates.JSON:
    lm, ids = models.load(str(args.folder), device=args.device, dtype="bfloat16"), passages(args)
    model = StreamedModel(lm)
    model.checkpoint.drop_cache()  # whoever loads a model hashes its files
    before = forget_peak(args.device)
    start, disk = time.perf_counter(), from_disk()
    with probe(model.model, keys=[0]) as p:
        out = model.run(
            ids,
            lambda layer, hidden: p.per_layer()[layer][..., 0].mean(-1),
            batch_tokens=ids.numel() // 2,
            reduce_logits=lambda logits: logits[:, -1],
        )
    seconds = time.perf_counter() - start
    return {
        "bytes": out.bytes_read,
        "bytes_from_disk": from_disk() - disk,
        "seconds": seconds,
        "peak_bytes": peak(args.device) - before,
        "seconds_waiting": out.seconds_reading,
        "seconds_computing": out.seconds_computing,
    }


def offload(args: argparse.Namespace) -> estimates.JSON:
    """accelerate keeps every layer on disk and reads it for each forward pass, so once for each micro-batch."""
    lm, ids = models.load(str(args.folder), device=args.device, dtype="bfloat16"), passages(args)
    layers = {f"model.layers.{i}": "disk" for i in range(lm.config.num_hidden_layers)}
    outside = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    device_map = {**layers, **dict.fromkeys(outside, args.device)}
    open_checkpoint(args.folder).drop_cache()
    before = forget_peak(args.device)
    start, disk = time.perf_counter(), from_disk()
    with tempfile.TemporaryDirectory(dir=args.folder.parent) as folder, torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(
            args.folder, dtype=torch.bfloat16, device_map=device_map, offload_folder=folder
        ).eval()
        with probe(model, keys=[0]):
            for batch in ids.split(len(ids) // 2):
                model(batch.to(args.device), use_cache=False, logits_to_keep=1)
    seconds = time.perf_counter() - start
    return {"bytes_from_disk": from_disk() - disk, "seconds": seconds, "peak_bytes": peak(args.device) - before}


def arithmetic(args: argparse.Namespace) -> estimates.JSON:
    """Operations a second in a product as large as those of a layer, for as many tokens as a micro-batch has."""
    config = AutoConfig.from_pretrained(args.folder)
    tokens = passages(args).numel() // 2
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": args.device}
    weights = [torch.randn(config.intermediate_size, config.hidden_size, **options) for _ in range(4)]
    states = torch.randn(tokens, config.hidden_size, **options)
    with torch.inference_mode():
        for weight in weights:
            float((states @ weight.T)[0, 0])
        start = time.perf_counter()
        for _ in range(3):
            for weight in weights:
                product = states @ weight.T
        float(product[0, 0])  # waits for a GPU
    operations = 2 * tokens * weights[0].numel() * 3 * len(weights)
    return {"operations_per_second": operations / (time.perf_counter() - start)}


def forget_peak(device: str) -> int:
    """Begin to count peak memory anew; what is taken now, in bytes, of a GPU or of RAM."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else resident("VmHWM")


def resident(kind: str) -> int:
    """Resident bytes of this process, now (`VmRSS`) or at most so far (`VmHWM`); Linux only. File pages that are
    merely mapped count too."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return int(line.split()[1]) * 1024


def from_disk() -> int:
    """Bytes that this process made the disk deliver, by reading or by touching mapped pages."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


# -- the comparison -----------------------------------------------------------------------------------------


WAYS = {"sequential": sequential, "streamed": streamed, "offload": offload, "arithmetic": arithmetic}


def run(args: argparse.Namespace, way: str) -> estimates.JSON:
    if way != "arithmetic":
        # A virtual machine gives free memory back to its host. Whoever takes it first pays for getting it again, here
        # up to three times the time of the read; so every way finds memory that was just in use.
        read(open_checkpoint(args.folder))
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as process:
        measured = process.submit(WAYS[way], args).result()
    print(f"{way}: {measured}", flush=True)
    return measured


def measure(args: argparse.Namespace) -> estimates.JSON:
    """The ways take turns, a plain read before and after each streamed pass, so that a slow moment of a shared disk or
    processor hits both; ratios are those of neighbours, and the middle one of all rounds counts."""
    checkpoint = open_checkpoint(args.folder)
    rounds: list[estimates.JSON] = []
    before = run(args, "sequential")
    for _ in range(args.repeats):
        one = {way: run(args, way) for way in ("streamed", "sequential", "offload", "arithmetic")}
        one["load_average"] = os.getloadavg()[0]
        plain = [read["bytes"] / read["seconds"] for read in (before, one["sequential"])]
        one["plain_rate"] = sum(plain) / 2
        one["rate_ratio"] = one["streamed"]["bytes"] / one["streamed"]["seconds"] / one["plain_rate"]
        one["waiting_share"] = one["streamed"]["seconds_waiting"] / one["streamed"]["seconds"]
        one["offload_time_ratio"] = one["offload"]["seconds"] / one["streamed"]["seconds"]
        one["predicted"] = prediction(args, one)
        rounds.append(one)
        before = run(args, "sequential")
    middle = sorted(rounds, key=lambda one: one["rate_ratio"])[len(rounds) // 2]
    streamed_pass, predicted = middle["streamed"], middle["predicted"]
    shape = cost.shape_of(AutoConfig.from_pretrained(args.folder), "bfloat16")
    activations = predicted["memory"] - 2 * shape.layer_bytes
    return {
        "checkpoint_bytes": checkpoint.bytes,
        "layers": shape.layers,
        "layer_bytes": shape.layer_bytes,
        "activation_bytes": activations,
        "rounds": rounds,
        "rate_ratios": sorted(one["rate_ratio"] for one in rounds),
        "streamed": streamed_pass,
        "predicted": predicted,
        "waiting_share": middle["waiting_share"],
        "load_average": middle["load_average"],
        "memory_ratio": max(one["streamed"]["peak_bytes"] for one in rounds) / predicted["memory"],
        "bytes_ratio": streamed_pass["bytes"] / checkpoint.bytes,
        "rate_ratio": middle["rate_ratio"],
        "offload_time_ratio": middle["offload_time_ratio"],
        "offload_memory_ratio": middle["offload"]["peak_bytes"] / streamed_pass["peak_bytes"],
        # Below 1 a cache helped, in spite of the request to drop it.
        "from_disk_ratio": min(
            one[way]["bytes_from_disk"] / one[way]["bytes"] for one in rounds for way in ("sequential", "streamed")
        ),
    }


def prediction(args: argparse.Namespace, one: estimates.JSON) -> estimates.JSON:
    """What the planner says of a streamed pass, given the rates of this round."""
    shape = cost.shape_of(AutoConfig.from_pretrained(args.folder), "bfloat16")
    load = cost.Load(args.texts, args.length, args.texts * args.length // 2, head=True)
    gpu = args.device.startswith("cuda")
    machine = Machine(
        "benchmark",
        free_memory("cpu"),
        gpus=int(gpu),
        gpu_memory=free_memory(args.device) if gpu else 0.0,
        disk_rate=one["plain_rate"],
        compute_rate=one["arithmetic"]["operations_per_second"],
    )
    return asdict(next(plan for plan in cost.plans(shape, machine, load) if plan.way == "streamed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=8.0, help="gigabytes of weights")
    parser.add_argument("--texts", type=int, default=2)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3, help="rounds in which the ways take turns")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--folder", type=Path, help="where to write the checkpoint; a temporary folder if not given")
    parser.add_argument("--record", action="store_true", help="write results/local/benchmark_streaming/<model>.json")
    args = parser.parse_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.folder = Path(folder)
        write_checkpoint(args.folder, args.size)
        os.sync()
        if not args.record:
            print(json.dumps(measure(args), indent=1))
            return
        lm = models.load(folder, device=args.device, dtype="bfloat16")
        records.reuse_or_measure(
            "benchmark_streaming",
            model=replace(lm, name=f"synthetic-llama-{args.size:g}gb"),
            parameters={"size": args.size, "texts": args.texts, "length": args.length, "repeats": args.repeats},
            texts_hash="random tokens",
            variant="" if args.device == "cpu" else args.device,
            measure=lambda: measure(args),
            fresh=True,
        )


if __name__ == "__main__":
    main()
