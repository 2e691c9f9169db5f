"""One model over several GPUs: transformers' tensor parallelism under torchrun, heads gathered from the processes.

    torchrun --nproc-per-node 8 -m firsttoken.execution.tensor_parallel meta-llama/Llama-3.1-405B --dtype bfloat16

measures the sink rates and writes their record, which `firsttoken run sink_rates --model ...` then shows. Each process
holds a share of every layer's heads, and the probe in it sees those; one gather at the end joins them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.models import DTYPES, LanguageModel


@lru_cache(maxsize=1)
def sharded_model(lm: LanguageModel) -> PreTrainedModel:
    """This process's share of a model, as transformers' own plan for the architecture divides it.

    Raises:
        FirstTokenError: transformers has no plan for it, or its heads do not divide among the processes.
    """
    _check_heads(lm, int(os.environ.get("WORLD_SIZE", "1")))
    config = DistributedConfig(tp_plan="auto")
    model = AutoModelForCausalLM.from_pretrained(
        lm.local_folder(), dtype=DTYPES[lm.dtype], distributed_config=config, trust_remote_code=lm.trust_remote_code
    )
    if not model.supports_tp_plan:
        raise FirstTokenError(
            f"transformers has no tensor-parallel plan for {type(model).__name__}; use device_map='auto' or "
            "execution='streamed'."
        )
    return model.eval()


def _check_heads(lm: LanguageModel, processes: int) -> None:
    """The forward pass would fail in the middle, with a complaint about a shape."""
    text = lm.config.get_text_config()
    plan: dict[str, str] = getattr(text, "base_model_tp_plan", None) or {}
    heads = text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    divided = any("attn" in name and how == "colwise" for name, how in plan.items())
    if divided and (heads % processes or groups % processes):
        raise FirstTokenError(
            f"{lm.name} has {heads} attention heads and {groups} key-value heads, which {processes} processes cannot "
            "share evenly; use a number of processes that divides both, or execution='streamed'."
        )


def gather_heads(found: Tensor, heads: int) -> Tensor:
    """Join what the processes saw of a statistic (text, layer, local head) to (text, layer, head).

    A process that saw all heads already (the plan leaves attention whole) keeps what it has.

    Raises:
        FirstTokenError: the heads do not divide evenly among the processes.
    """
    if found.shape[-1] == heads:
        return found
    if found.shape[-1] * dist.get_world_size() != heads:
        raise FirstTokenError(
            f"{heads} heads over {dist.get_world_size()} processes are not {found.shape[-1]} each; use a number of "
            "processes that divides the heads and the key-value heads."
        )
    # NCCL gathers between GPUs only, gloo on the CPU.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    local = found.to(device).contiguous()
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local)
    return torch.cat(parts, dim=-1).cpu()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the sink rates of one model in all processes; the first writes the record."""
    from firsttoken.claims.sink_rates import measure as sink_rates  # which imports this module

    parser = argparse.ArgumentParser(
        prog="torchrun ... -m firsttoken.execution.tensor_parallel", description=main.__doc__
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    for field in dataclasses.fields(sink_rates.SinkRates):
        if field.name != "execution":
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    chosen = vars(parser.parse_args(arguments))
    name, dtype, device = (chosen.pop(key) for key in ("model", "dtype", "device"))
    first = os.environ.get("RANK", "0") == "0"
    with tempfile.TemporaryDirectory() as scratch:
        if not first:
            os.environ["FIRSTTOKEN_RESULTS"] = scratch
        try:
            lm = models.load(name, dtype=dtype, device=device)
            settings = sink_rates.SinkRates(**chosen, execution="tensor_parallel")
            # Whether an old record exists may differ between machines, and then some processes would wait for ever.
            record = sink_rates.measure(lm, settings, fresh=True)
        except FirstTokenError as error:
            print(error, file=sys.stderr)
            return 2
    if first and record.verdict:
        print(f"sink_rates/{record.filename}: {record.verdict.sentence}")
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
