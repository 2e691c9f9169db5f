"""How a model is run: resident in memory, streamed layer by layer from disk, or spread over processes.

The choice changes no number beyond rounding, so it is not part of a record.
"""

from __future__ import annotations

import os
from typing import Literal
from weakref import WeakKeyDictionary

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.models import DTYPES, LanguageModel
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.machine import free_memory

Way = Literal["resident", "streamed", "tensor_parallel"]
WAYS: dict[str, Way] = {"resident": "resident", "streamed": "streamed", "tensor_parallel": "tensor_parallel"}
# Beside the weights: activations of a batch, the tokenizer, kernels' workspace.
ROOM = 1.15
# What `auto` chose for a model in use: free memory changes during a measurement, the way through it should not.
_chosen: WeakKeyDictionary[LanguageModel, Way] = WeakKeyDictionary()


def choose(lm: LanguageModel, execution: str) -> Way:
    """The way to run a model; `auto` takes `tensor_parallel` under torchrun, `streamed` where the weights do not
    fit in free memory (and says so in one line), else `resident`. For a model object in use it is decided once.

    Raises:
        FirstTokenError: an unknown way, or tensor parallelism outside torchrun.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if execution not in ("auto", *WAYS):
        raise FirstTokenError(f"execution must be auto, {', '.join(WAYS)}, not {execution!r}.")
    if execution == "tensor_parallel" and processes == 1:
        raise FirstTokenError(
            "execution='tensor_parallel' needs several processes: "
            "torchrun --nproc-per-node 8 -m firsttoken.torchrun MODEL."
        )
    if execution in WAYS:
        return WAYS[execution]
    if processes > 1:
        return "tensor_parallel"
    # A device map already says where the weights go, and a loaded model has its place.
    if lm.device_map or "model" in vars(lm):
        return "resident"
    if lm not in _chosen:
        _chosen[lm] = _by_memory(lm)
    return _chosen[lm]


def _by_memory(lm: LanguageModel) -> Way:
    needed = weight_bytes(lm)
    free = free_memory(lm.device)
    if needed * ROOM <= free or getattr(lm.config, "quantization_config", None):
        return "resident"
    print(
        f"{lm.name}: its weights take {needed / 1e9:.1f} GB in {lm.dtype} and {lm.device} has {free / 1e9:.1f} GB "
        "free, so it is streamed from disk layer by layer (execution=auto).",
        flush=True,
    )
    return "streamed"


def choose_for_one_process(lm: LanguageModel, execution: str) -> Way:
    """`choose` for a measure that looks further than the probe, which tensor parallelism does not show.

    Raises:
        FirstTokenError: as `choose`, or started under torchrun.
    """
    way = choose(lm, execution)
    if way == "tensor_parallel":
        raise FirstTokenError(
            "This measure runs in one process: leave torchrun away, and use execution='streamed' or device_map='auto'."
        )
    return way


def weight_bytes(lm: LanguageModel) -> int:
    """Memory for all weights in the precision of the run."""
    return open_checkpoint(lm.local_folder()).parameters() * torch.empty(0, dtype=DTYPES[lm.dtype]).element_size()
