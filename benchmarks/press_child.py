"""The side of `press.py` that runs in an environment with kvpress. It imports nothing of this project.

    python -I benchmarks/press_child.py FOLDER

FOLDER holds `task.json` and `ids.npy`, (text, token); the losses that each setting leaves, (text, query) in nats, are
written to `losses.npz`, and the versions of the packages to `versions.json`.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import kvpress
import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache


def losses(model: Any, ids: torch.Tensor, task: dict[str, Any], press: Any, first: int | None) -> torch.Tensor:
    """Losses of one text after its context, as kvpress's own pipeline reads a question: (query,), nats.

    The context is read under the press, without the head; the rest in one pass with what is left of the cache.

    Args:
        ids: (1, token).
        press: None keeps the full cache.
        first: the position of the first token after the context. None leaves it to transformers, which counts the
            tokens in the cache.
    """
    context = task["context"]
    cache = DynamicCache()
    with press(model) if press else nullcontext():
        model.model(input_ids=ids[:, :context], past_key_values=cache)
    expected = task["kept"] if press else context
    if cache.get_seq_length() != expected:
        sys.exit(f"kvpress left {cache.get_seq_length()} tokens in the cache, not {expected}.")
    read, goal = ids[:, context:-1], ids[0, context + 1 :]
    positions = None if first is None else torch.arange(first, first + read.shape[1])[None]
    logits = model(input_ids=read, past_key_values=cache, position_ids=positions).logits.float()
    return torch.nn.functional.cross_entropy(logits[0], goal, reduction="none")


def main(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text())
    ids = torch.from_numpy(np.load(folder / "ids.npy"))
    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32, use_safetensors=True).eval()
    context, kept = task["context"], task["kept"]
    # kvpress keeps int(context * (1 - ratio)); the half keeps rounding from taking one token too many.
    ratio = 1 - (kept + 0.5) / context if kept < context else 0.0
    window = kvpress.StreamingLLMPress(compression_ratio=ratio, n_sink=0)
    sinks = kvpress.StreamingLLMPress(compression_ratio=ratio, n_sink=task["sinks"])
    settings = {
        "full": (None, context),
        "window": (window, context),
        "sinks": (sinks, context),
        "sinks_renumbered": (kvpress.KeyRerotationPress(sinks), kept),
        "sinks_uncounted": (sinks, None),
    }
    with torch.inference_mode():
        by_setting = {
            name: torch.stack([losses(model, row[None], task, *setting) for row in ids]).numpy()
            for name, setting in settings.items()
        }
    np.savez(folder / "losses.npz", **by_setting)
    packages = ("kvpress", "transformers", "torch", "numpy")
    versions = {name: metadata.version(name).split("+")[0] for name in packages}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
