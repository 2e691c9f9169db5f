"""One model over several GPUs: transformers' tensor parallelism under torchrun, heads gathered from the processes.

Each process holds a share of every layer's heads, and the probe in it sees those; one gather at the end joins them.
`firsttoken.torchrun` is the command.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models import DTYPES, LanguageModel
from firsttoken.models.anatomy import key_value_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@lru_cache(maxsize=1)
def sharded_model(lm: LanguageModel) -> PreTrainedModel:
    """This process's share of a model, as transformers' own plan for the architecture divides it.

    Raises:
        FirstTokenError: transformers has no plan for it, or its heads do not divide among the processes.
    """
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    _check_heads(lm, int(os.environ.get("WORLD_SIZE", "1")))
    config = DistributedConfig(tp_plan="auto")
    model: Any = AutoModelForCausalLM.from_pretrained(
        lm.local_folder(),
        dtype=DTYPES[lm.dtype],
        distributed_config=config,
        trust_remote_code=lm.trust_remote_code,
        use_safetensors=True,
        key_mapping=lm.weights.key_mapping(),  # the files are compared with the model first
    )
    lm.refuse_replaced()
    if not model.supports_tp_plan:
        raise FirstTokenError(
            f"transformers has no tensor-parallel plan for {type(model).__name__}; use device_map='auto' or "
            "execution='streamed'."
        )
    return cast("PreTrainedModel", model.eval())


def _check_heads(lm: LanguageModel, processes: int) -> None:
    """The forward pass would fail in the middle, with a complaint about a shape."""
    text = lm.config.get_text_config()
    plan: dict[str, str] = getattr(text, "base_model_tp_plan", None) or {}
    heads, groups = text.num_attention_heads, key_value_heads(text)
    divided = any("attn" in name and how == "colwise" for name, how in plan.items())
    if divided and (heads % processes or groups % processes):
        raise FirstTokenError(
            f"{lm.name} has {heads} attention heads and {groups} key-value heads, which {processes} processes cannot "
            "share evenly; use a number of processes that divides both, or execution='streamed'."
        )


def gather_heads(statistic: Tensor, heads: int) -> Tensor:
    """Join what the processes saw of a statistic (text, layer, local head) to (text, layer, head).

    A process that saw all heads already (the plan leaves attention whole) keeps what it has.

    Raises:
        FirstTokenError: the heads do not divide evenly among the processes.
    """
    if statistic.shape[-1] == heads:
        return statistic
    if statistic.shape[-1] * dist.get_world_size() != heads:
        raise FirstTokenError(
            f"{heads} heads over {dist.get_world_size()} processes are not {statistic.shape[-1]} each; use a number "
            "of processes that divides the heads and the key-value heads."
        )
    # NCCL gathers between GPUs only, gloo on the CPU.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    local = statistic.to(device).contiguous()
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local)
    return torch.cat(parts, dim=-1).cpu()
